# kubehose on the AWS image, for ECS FireLens and DaemonSets. Build it in a folder with libkubehose.so from `make dist`:
#   docker build -f aws-for-fluent-bit.Dockerfile -t kubehose:aws .
# 3.5.10 is Fluent Bit 5.1. AWS ended 2.x (Fluent Bit 1.9) in June 2026; whoever must: 2.34.3.20260818 takes the same lines.
# The base runs as root: on a node it reads /var/log, and FireLens mounts its socket so.
FROM public.ecr.aws/aws-observability/aws-for-fluent-bit:3.5.10

COPY --chmod=0444 libkubehose.so /kubehose/libkubehose.so
# The base's entrypoint names its plugins by -e; the configuration that FireLens writes is read after them.
ENTRYPOINT ["/fluent-bit/bin/fluent-bit", "-e", "/kubehose/libkubehose.so", "-c", "/fluent-bit/etc/fluent-bit.conf"]
