# kubehose on Fluent Bit's own image. Build it in a folder with libkubehose.so from `make dist` and these two files:
#   docker build -f fluent-bit.Dockerfile -t kubehose:4.2.8 .
FROM fluent/fluent-bit:4.2.8

COPY --chmod=0444 libkubehose.so plugins.conf /kubehose/
# Files that only root may read (container logs on a node) need `runAsUser: 0` in the pod, as in the DaemonSet.
USER 65532:65532
ENTRYPOINT ["/fluent-bit/bin/fluent-bit"]
CMD ["-c", "/fluent-bit/etc/fluent-bit.conf"]
