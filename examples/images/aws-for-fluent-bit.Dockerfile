# kubehose on the AWS image, for ECS FireLens and DaemonSets. Build it in a folder with libkubehose.so from `make dist`:
#   docker build -f aws-for-fluent-bit.Dockerfile -t kubehose:aws .
# 3.5.10 is Fluent Bit 5.1. AWS ended 2.x (Fluent Bit 1.9) in June 2026; with 2.34.3.20260818 the same lines work.
# The base runs as root: on a node it reads /var/log, and FireLens' socket belongs to root.
FROM public.ecr.aws/aws-observability/aws-for-fluent-bit:3.5.10

COPY --chmod=0444 libkubehose.so /kubehose/libkubehose.so
# The base's entrypoint loads its plugins by -e, before it reads the configuration that FireLens writes.
ENTRYPOINT ["/fluent-bit/bin/fluent-bit", "-e", "/kubehose/libkubehose.so", "-c", "/fluent-bit/etc/fluent-bit.conf"]
