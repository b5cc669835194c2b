//! Images, manifests and task definitions run in containers exactly as written: users, mounts, capabilities, probes.
//!
//! Needs root, podman (4.3 or newer) and the base images, which are not pulled here. The tests change only the node's
//! paths, Firehose's address, the probes' port, and what podman cannot run.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kubehose_local::firehose::{Keep, Options, Server};
use serde_json::Value;
use support::{Run, append, kubehose, not_run, root, run};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(60);

/// The base image of an example's Dockerfile, under the name that podman uses.
fn base(dockerfile: &str) -> String {
    let text = std::fs::read_to_string(root().join(dockerfile)).unwrap();
    let from = text.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap();
    let hub = !from.split('/').next().is_some_and(|host| host.contains('.'));
    if hub { format!("docker.io/{from}") } else { from.to_owned() }
}

/// podman, used by one test at a time; everything it creates is removed with it.
struct Engine {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    name: String,
}

impl Engine {
    /// Returns None, and prints one line saying so, where containers cannot run or a base image is missing.
    fn find(what: &str, bases: &[&str]) -> Option<Engine> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        // Explicit ulimits, because the defaults exceed what some machines allow.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=1000:1000\"]\n";
        std::fs::write(folder.path().join("containers.conf"), settings).unwrap();
        let name = format!("kubehose-test-{}", std::process::id());
        let engine = Engine { _alone: alone, folder, name };
        let missing = |why: &str| {
            not_run(&format!("{what} in containers: {why}"));
            None
        };
        if Command::new("podman").arg("--version").output().is_err() {
            return missing("no podman on the PATH");
        }
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if !root {
            return missing("they need root, as on a node");
        }
        for image in bases {
            if engine.podman(&["image", "exists", image]).code != 0 {
                return missing(&format!("no image {image} (podman pull {image})"));
            }
        }
        let trial = engine.podman(&["run", "--rm", "--network", "none", bases[0], "--version"]);
        if trial.code != 0 {
            return missing(&format!("podman runs none here: {}", trial.stderr.lines().last().unwrap_or_default()));
        }
        Some(engine)
    }

    fn podman(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new("timeout");
        command.arg("180").arg("podman").args(arguments);
        if std::env::var_os("CONTAINERS_CONF").is_none() {
            command.env("CONTAINERS_CONF", self.folder.path().join("containers.conf"));
        }
        run(&mut command)
    }

    /// The address at which containers in podman's network reach this machine.
    fn gateway(&self) -> String {
        let found = self.podman(&["network", "inspect", "podman"]).fine();
        let network: Value = serde_json::from_str(&found).unwrap();
        network[0]["subnets"][0]["gateway"].as_str().unwrap().to_owned()
    }

    /// An example's image, built in a folder with the plugin, as the Dockerfile's first lines say.
    fn build(&self, dockerfile: &str, plugin: &Path) -> String {
        let context = tempfile::tempdir().unwrap();
        std::fs::copy(plugin, context.path().join("libkubehose.so")).unwrap();
        std::fs::copy(root().join("examples/images/plugins.conf"), context.path().join("plugins.conf")).unwrap();
        self.build_in(context.path(), &root().join(dockerfile))
    }

    fn build_in(&self, context: &Path, dockerfile: &Path) -> String {
        let image = format!("localhost/{}:{}", self.name, dockerfile.file_stem().unwrap().to_str().unwrap());
        let (dockerfile, context) = (dockerfile.to_str().unwrap(), context.to_str().unwrap());
        self.podman(&["build", "--pull=never", "-f", dockerfile, "-t", &image, context]).fine();
        image
    }

    /// Starts a manifest's pod; returns the name of its router's container.
    fn play(&self, manifest: &str, container: &str) -> String {
        // podman keeps an emptyDir under its plain name, and the next pod would find the files of the last one.
        let mut own = manifest.to_owned();
        for (before, _) in manifest.match_indices("\n          emptyDir:") {
            let name = manifest[..before].rsplit("- name: ").next().unwrap();
            own = own.replace(&format!("- name: {name}\n"), &format!("- name: {}-{name}\n", self.name));
        }
        let manifest = &own;
        let file = self.folder.path().join("pod.yaml");
        std::fs::write(&file, manifest).unwrap();
        let played = self.podman(&["play", "kube", file.to_str().unwrap()]);
        assert_eq!(played.code, 0, "{played:#?}\n{manifest}");
        let running = self.podman(&["ps", "-a", "--format", "{{.Names}}"]).fine();
        let name =
            running.lines().find(|name| name.starts_with(&self.name) && name.ends_with(&format!("-{container}")));
        name.unwrap_or_else(|| panic!("no container {container}: {running}")).to_owned()
    }

    /// Stops and removes a container, retrying because podman fails if the container exits while it is being killed.
    fn remove(&self, container: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let removed = self.podman(&["rm", "-f", "-t", "1", container]);
            if removed.code == 0 || self.podman(&["container", "exists", container]).code == 1 {
                return;
            }
            assert!(Instant::now() < end, "{removed:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn log(&self, container: &str) -> String {
        let said = self.podman(&["logs", container]);
        said.stdout + &said.stderr
    }

    fn state(&self, container: &str) -> Value {
        let found = self.podman(&["inspect", container]).fine();
        serde_json::from_str::<Value>(&found).unwrap()[0].clone()
    }

    /// Waits until a path of Fluent Bit's HTTP server answers at an address in the container's network.
    fn answers(&self, container: &str, url: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = self.state(container);
            assert_eq!(state["State"]["Running"], true, "{container} has exited:\n{}", self.log(container));
            let pid = state["State"]["Pid"].to_string();
            let curl = ["-n", "-t", &pid, "curl", "-sS", "-g", "-o", "/dev/null", "-w", "%{http_code}", url];
            let answer = run(Command::new("nsenter").args(curl));
            if answer.stdout == "200" {
                return;
            }
            assert!(Instant::now() < end, "{url}: {answer:?}\n{}", self.log(container));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits for the first record, and returns it.
    fn record(&self, server: &Server, container: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        while server.records().is_empty() {
            assert!(Instant::now() < end, "no record has arrived:\n{}", self.log(container));
            std::thread::sleep(Duration::from_millis(100));
        }
        serde_json::from_slice(&server.records()[0].data).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let own = |list: &[&str]| -> Vec<String> {
            let listed = self.podman(list).stdout;
            listed.lines().filter(|name| name.contains(&self.name)).map(str::to_owned).collect()
        };
        for (list, remove) in [
            (["pod", "ps", "--format", "{{.Name}}"].as_slice(), ["pod", "rm", "-f", "-t", "1"].as_slice()),
            (&["ps", "-a", "--format", "{{.Names}}"], &["rm", "-f", "-t", "1"]),
            (&["images", "--format", "{{.Repository}}:{{.Tag}}"], &["rmi", "-f"]),
            (&["volume", "ls", "--format", "{{.Name}}"], &["volume", "rm", "-f"]),
        ] {
            for name in own(list) {
                self.podman(&[remove, &[name.as_str()]].concat());
            }
        }
    }
}

const FLUENT_BIT: &str = "examples/images/fluent-bit.Dockerfile";
const AWS: &str = "examples/images/aws-for-fluent-bit.Dockerfile";

/// The plugin built with these tests.
fn plugin() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("KUBEHOSE_SO").map(std::path::PathBuf::from);
    let path = named.or_else(|| Some(std::env::current_exe().ok()?.with_file_name("libkubehose.so")))?;
    if path.is_file() {
        return Some(path);
    }
    not_run(&format!("containers: no plugin {}", path.display()));
    None
}

/// A Firehose endpoint that containers can reach.
fn firehose() -> Server {
    Server::start(Options { listen: ([0, 0, 0, 0], 0).into(), keep: Keep::Records, ..Options::default() }).unwrap()
}

/// The environment that points a container at the local Firehose endpoint.
fn environment(engine: &Engine, server: &Server) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_FIREHOSE", format!("http://{}:{}", engine.gateway(), server.port())),
        ("AWS_ACCESS_KEY_ID", "local".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

/// The container's environment in a manifest's form.
fn env_lines(environment: &[(&str, String)]) -> String {
    environment
        .iter()
        .map(|(name, value)| format!("            - name: {name}\n              value: '{value}'\n"))
        .collect()
}

/// The manifest with a free port instead of its own, because podman binds a pod's ports on this machine. The port is
/// below 32768: the system assigns the ports above to the other tests.
fn on_a_free_port(manifest: &str) -> String {
    let first = 20_000 + std::process::id() as u16 % 10_000;
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let port = (first..32_768).find(free).unwrap();
    manifest
        .replace("containerPort: 2020 }", &format!("containerPort: 2020, hostPort: {port} }}"))
        .replace("containerPort: 2020\n", &format!("containerPort: 2020\n              hostPort: {port}\n"))
}

/// A node's /var/log with the files of one container, all owned by root, as the container runtime creates them.
fn node_logs(folder: &Path) -> std::path::PathBuf {
    let pods = folder.join("pods/shop_web-1_uid/nginx");
    std::fs::create_dir_all(&pods).unwrap();
    std::fs::create_dir(folder.join("containers")).unwrap();
    let file = pods.join("0.log");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::set_permissions(&pods, std::fs::Permissions::from_mode(0o750)).unwrap();
    let link = folder.join(format!("containers/web-1_shop_nginx-{ID}.log"));
    symlink("/var/log/pods/shop_web-1_uid/nginx/0.log", link).unwrap();
    file
}

#[test]
fn the_daemonsets_pod_reads_roots_files_with_one_capability_and_answers_its_probes_on_ipv4_and_ipv6() {
    let Some(engine) = Engine::find("the DaemonSet", &[&base(FLUENT_BIT)]) else { return };
    let Some(plugin) = plugin() else { return };
    let image = engine.build(FLUENT_BIT, &plugin);
    let server = firehose();
    let options = "--region eu-west-1 --delivery-stream logs";
    let written = kubehose(&format!("manifest --target daemonset --image {image} {options}")).fine();
    let example = std::fs::read_to_string(root().join("examples/kubernetes/daemonset.yaml")).unwrap();
    let example_image = example.lines().find_map(|line| line.trim().strip_prefix("image: ")).unwrap();
    let example = example.replace(example_image, &image);
    for (what, manifest, container) in
        [("manifest", written, "kubehose"), ("examples/kubernetes", example, "fluent-bit")]
    {
        let node = tempfile::tempdir().unwrap();
        let (logs, state) = (node.path().join("log"), node.path().join("state"));
        std::fs::create_dir(&logs).unwrap();
        let file = node_logs(&logs);
        let env = env_lines(&environment(&engine, &server));
        // podman cannot run a DaemonSet, so its pod runs as a Deployment's.
        let manifest = on_a_free_port(&manifest)
            .replace(
                "kind: DaemonSet\nmetadata:\n  name: kubehose",
                &format!("kind: Deployment\nmetadata:\n  name: {}", engine.name),
            )
            .replace("path: /var/log }", &format!("path: {} }}", logs.display()))
            .replace("path: /var/log\n", &format!("path: {}\n", logs.display()))
            .replace("path: /var/lib/kubehose", &format!("path: {}", state.display()))
            .replace("          securityContext:\n", &format!("          env:\n{env}          securityContext:\n"));
        let before = server.records().len();
        let name = engine.play(&manifest, container);
        for address in ["127.0.0.1", "[::1]"] {
            for path in ["/", "/api/v1/health"] {
                engine.answers(&name, &format!("http://{address}:2020{path}"));
            }
        }
        let state = engine.state(&name);
        assert_eq!(state["HostConfig"]["ReadonlyRootfs"], true, "{what}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", state["State"]["Pid"])).unwrap();
        // CAP_DAC_READ_SEARCH is the only capability in the bounding set.
        assert!(status.contains("CapBnd:\t0000000000000004") && status.contains("NoNewPrivs:\t1"), "{what}: {status}");
        append(&file, "2026-01-27T16:53:42.123456789Z stdout F GET /cart 200\n");
        let end = Instant::now() + PATIENCE;
        while server.records().len() == before {
            assert!(Instant::now() < end, "{what}: no record has arrived:\n{}", engine.log(&name));
            std::thread::sleep(Duration::from_millis(100));
        }
        let record: Value = serde_json::from_slice(&server.records()[before].data).unwrap();
        let names =
            ["kube_container_name", "kube_namespace", "pod_name", "container_id", "log"].map(|key| &record[key]);
        assert_eq!(names, ["nginx", "shop", "web-1", ID, "GET /cart 200"], "{what}: {record}");
        assert!(node.path().join("state/chunks").is_dir(), "{what}: the state is not stored on the node");
        engine.podman(&["pod", "rm", "-f", "-t", "10", &format!("{}-pod-0", engine.name)]);
    }
}

#[test]
fn the_sidecars_pod_runs_without_root_and_delivers_what_the_application_writes() {
    let Some(engine) = Engine::find("the sidecar", &[&base(FLUENT_BIT)]) else { return };
    let Some(plugin) = plugin() else { return };
    let image = engine.build(FLUENT_BIT, &plugin);
    // The application that writes a file is Fluent Bit itself: its image is the only one known to be present.
    let application = tempfile::tempdir().unwrap();
    let file = application.path().join("app.Dockerfile");
    let text = format!(
        "FROM {}\nENTRYPOINT [\"/fluent-bit/bin/fluent-bit\", \"-q\", \"-f\", \"1\", \"-i\", \"dummy\", \"-o\", \"file\", \"-m\", \"*\", \
         \"-p\", \"path=/var/log/nginx\", \"-p\", \"file=access.log\"]\n",
        base(FLUENT_BIT)
    );
    std::fs::write(&file, text).unwrap();
    let app = engine.build_in(application.path(), &file);
    let server = firehose();
    let written = kubehose(&format!(
        "manifest --target sidecar --image {image} --app-image {app} --region eu-west-1 --delivery-stream logs"
    ))
    .fine();
    let env = env_lines(&environment(&engine, &server));
    // podman cannot resolve a pod's namespace either.
    let namespace = "valueFrom:\n                fieldRef:\n                  fieldPath: metadata.namespace";
    assert!(written.contains(namespace));
    // podman 4.3 waits for each init container to end, even a restartable one: here the sidecar runs as an ordinary
    // container.
    let manifest = on_a_free_port(&written)
        .replace("      containers:\n", "")
        .replace("      initContainers:\n", "      containers:\n")
        .replace("          restartPolicy: Always\n", "")
        .replace(namespace, "value: kubehose")
        .replace("  name: app-with-kubehose\n", &format!("  name: {}\n", engine.name))
        .replace("          env:\n", &format!("          env:\n{env}"));
    let name = engine.play(&manifest, "kubehose");
    for address in ["127.0.0.1", "[::1]"] {
        engine.answers(&name, &format!("http://{address}:2020/"));
    }
    let state = engine.state(&name);
    let status = std::fs::read_to_string(format!("/proc/{}/status", state["State"]["Pid"])).unwrap();
    assert!(status.contains("Uid:\t65532\t65532") && status.contains("CapBnd:\t0000000000000000"), "{status}");
    let record = engine.record(&server, &name);
    assert_eq!(record["kube_container_name"], "app", "{record}");
    assert_eq!(record["pod_name"], format!("{}-pod-0", engine.name), "{record}");
    assert!(record["log"].as_str().is_some_and(|log| log.contains("dummy")), "{record}");
}

/// The configuration that FireLens writes around a task definition's options.
fn firelens(task: &Value) -> String {
    let mut text = "[INPUT]\n    Name forward\n    Listen 0.0.0.0\n    Port 24224\n
[FILTER]\n    Name record_modifier\n    Match *\n    Record ecs_cluster shop\n    Record ecs_task_arn arn:aws:ecs:eu-west-1:123456789012:task/shop/0\n    Record ecs_task_definition app-with-kubehose:1\n
[OUTPUT]\n    Match *-firelens*\n"
        .to_owned();
    let containers = task["containerDefinitions"].as_array().unwrap();
    let options = containers.iter().find_map(|one| one["logConfiguration"]["options"].as_object()).unwrap();
    for (key, value) in options {
        text += &format!("    {key} {}\n", value.as_str().unwrap());
    }
    text
}

#[test]
fn the_router_of_the_task_definition_delivers_with_firelens_own_configuration() {
    let bases = [base(AWS), base(FLUENT_BIT)];
    let Some(engine) = Engine::find("the task definition", &[&bases[0], &bases[1]]) else { return };
    let Some(plugin) = plugin() else { return };
    let image = engine.build(AWS, &plugin);
    let written =
        kubehose(&format!("manifest --target firelens --image {image} --region eu-west-1 --delivery-stream logs"))
            .fine();
    let example = std::fs::read_to_string(root().join("examples/ecs/task-definition.json")).unwrap();
    for (what, text) in [("manifest", written), ("examples/ecs", example)] {
        let task: Value = serde_json::from_str(&text).unwrap();
        let router = task["containerDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["firelensConfiguration"].is_object());
        let router = router.unwrap();
        let server = firehose();
        let config = engine.folder.path().join("fluent-bit.conf");
        std::fs::write(&config, firelens(&task)).unwrap();
        let name = format!("{}-router", engine.name);
        let mount = format!("{}:/fluent-bit/etc/fluent-bit.conf:ro", config.display());
        let mut arguments: Vec<String> = ["run", "-d", "--name", &name, "-v", &mount].map(str::to_owned).into();
        for (name, value) in environment(&engine, &server) {
            arguments.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        if let Some(user) = router["user"].as_str() {
            arguments.extend(["--user".to_owned(), user.to_owned()]);
        }
        let list = |key: &str| -> Option<Vec<String>> { serde_json::from_value(router[key].clone()).ok() };
        if let Some(entry) = list("entryPoint") {
            arguments.extend(["--entrypoint".to_owned(), serde_json::to_string(&entry).unwrap()]);
        }
        arguments.push(image.clone());
        arguments.extend(list("command").unwrap_or_default());
        engine.podman(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).fine();
        // A second Fluent Bit, in the task's network, acts as Docker's log driver.
        let event = r#"dummy={"container_id":"c4d8166a5cb1","container_name":"/ecs-app-1","source":"stdout","log":"GET /cart 200"}"#;
        let network = format!("container:{name}");
        let driver = format!("{}-driver", engine.name);
        engine
            .podman(&[
                "run",
                "-d",
                "--name",
                &driver,
                "--network",
                &network,
                &bases[1],
                "-f",
                "1",
                "-i",
                "dummy",
                "-t",
                "app-firelens-0",
                "-p",
                event,
                "-o",
                "forward",
                "-m",
                "*",
                "-p",
                "host=127.0.0.1",
                "-p",
                "port=24224",
                "-p",
                "retry_limit=no_limits",
            ])
            .fine();
        let record = engine.record(&server, &name);
        let names = ["container_name", "container_id", "task_arn", "ecs_cluster_name", "log"].map(|key| &record[key]);
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task/shop/0";
        assert_eq!(names, ["/ecs-app-1", "c4d8166a5cb1", arn, "shop", "GET /cart 200"], "{what}: {record}");
        engine.remove(&driver);
        engine.remove(&name);
    }
}

/// Copies a folder and everything below it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn without_an_installed_fluent_bit_the_demo_runs_in_a_local_image() {
    let Some(engine) = Engine::find("the demo", &[&base(FLUENT_BIT)]) else { return };
    let Some(plugin) = plugin() else { return };
    let repository = tempfile::tempdir().unwrap();
    copy(&root().join("examples/demo"), &repository.path().join("examples/demo"));
    std::fs::copy(root().join("plugins.conf"), repository.path().join("plugins.conf")).unwrap();
    let release = repository.path().join("target/release");
    std::fs::create_dir_all(&release).unwrap();
    std::fs::copy(plugin, release.join("libkubehose.so")).unwrap();
    // One PATH with only the container engine, and one without it.
    let programs = tempfile::tempdir().unwrap();
    let podman = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("podman"))
        .find(|file| file.is_file());
    symlink(podman.unwrap(), programs.path().join("podman")).unwrap();
    let demo = |path: &Path| {
        let mut demo = support::command();
        demo.args(["demo", "--repository", repository.path().to_str().unwrap()])
            .env("PATH", path)
            .env_remove("FLUENT_BIT");
        if std::env::var_os("CONTAINERS_CONF").is_none() {
            demo.env("CONTAINERS_CONF", engine.folder.path().join("containers.conf"));
        }
        run(&mut demo)
    };
    let ran = demo(programs.path());
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("Fluent Bit v") && ran.stderr.contains(" in podman)"), "{ran:#?}");
    // The stand-in host may not be built, and the output then says so; either way the demo looked for it.
    let without = demo(repository.path());
    assert!(without.stderr.contains("kubehose-host"), "{without:#?}");
}

#[test]
fn the_services_of_the_compose_file_deliver_to_each_other() {
    let bases = [base(FLUENT_BIT), "docker.io/library/debian:12-slim".to_owned()];
    let Some(engine) = Engine::find("the compose file", &[&bases[0], &bases[1]]) else { return };
    let Some(plugin) = plugin() else { return };
    let Some(compose) = support::venv("podman-compose", "the compose file") else { return };
    for port in [4573, 4574] {
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
            not_run(&format!("the compose file in containers: port {port}, which it publishes, is in use"));
            return;
        }
    }
    let folder = engine.folder.path().join(&engine.name);
    copy(&root().join("examples/compose"), &folder);
    std::fs::copy(root().join("examples/images/plugins.conf"), folder.join("plugins.conf")).unwrap();
    std::fs::copy(plugin, folder.join("libkubehose.so")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_kubehose"), folder.join("kubehose")).unwrap();
    let up = |what: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("120").arg(&compose).args(["-f", "compose.yaml"]).args(what).current_dir(&folder);
        if std::env::var_os("CONTAINERS_CONF").is_none() {
            command.env("CONTAINERS_CONF", engine.folder.path().join("containers.conf"));
        }
        run(&mut command)
    };
    let started = up(&["up", "-d"]);
    let end = Instant::now() + PATIENCE;
    let shown = loop {
        let events = ["-s", "-N", "--max-time", "2", "http://127.0.0.1:4574/_kubehose/events"];
        let shown = run(Command::new("curl").args(events)).stdout;
        if shown.contains("kube_namespace") || Instant::now() > end {
            break shown;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let logs = up(&["logs"]);
    up(&["down", "-t", "1"]);
    assert!(shown.contains("web-6c8b449b8f-x2k4p"), "no record on the page: {started:#?}\n{logs:#?}");
}
