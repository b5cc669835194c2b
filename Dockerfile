# The plugin and the command, built from a checkout, and the images that hold them:
#   docker build -t kubehose:4.2.8 .                    Fluent Bit with the plugin: a custom log router
#   docker build --target aws -t kubehose:aws .         AWS's Fluent Bit with the plugin, for ECS FireLens
#   docker build --target plugin -t kubehose:plugin .   the plugin alone, for an init container
#   docker build --target files --output dist .         the files
# For both architectures: docker buildx build --platform linux/amd64,linux/arm64 …; the compiler runs on the machine's own, and
# zig links for the other. The result needs glibc 2.26 or newer. For a release's files see examples/images.
FROM --platform=$BUILDPLATFORM rust:1.94.1-bookworm AS build
ARG TARGETARCH
WORKDIR /kubehose
COPY . .
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
        amd64) target=x86_64-unknown-linux-gnu ;; \
        arm64) target=aarch64-unknown-linux-gnu ;; \
        *) echo "kubehose is built for amd64 and arm64, not for $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && rustup target add "$target" \
    && scripts/dist.sh "$target" \
    && mv "dist/kubehose-$target" /out

FROM scratch AS files
COPY --from=build /out/ /

# Its command copies the plugin into a volume that Fluent Bit's container also mounts.
FROM busybox:1.37.0 AS plugin
COPY --from=build --chmod=0444 /out/libkubehose.so /out/plugins.conf /kubehose/
USER 65532:65532
CMD ["cp", "-f", "/kubehose/libkubehose.so", "/kubehose/plugins.conf", "/plugin/"]

# Like examples/images/aws-for-fluent-bit.Dockerfile.
FROM public.ecr.aws/aws-observability/aws-for-fluent-bit:3.5.10 AS aws
COPY --from=build --chmod=0444 /out/libkubehose.so /kubehose/libkubehose.so
ENTRYPOINT ["/fluent-bit/bin/fluent-bit", "-e", "/kubehose/libkubehose.so", "-c", "/fluent-bit/etc/fluent-bit.conf"]

# Like examples/images/fluent-bit.Dockerfile, with the command, too. The base is distroless.
FROM fluent/fluent-bit:4.2.8 AS router
COPY --from=build --chmod=0444 /out/libkubehose.so /out/plugins.conf /kubehose/
COPY --from=build --chmod=0555 /out/kubehose /kubehose/
USER 65532:65532
ENTRYPOINT ["/fluent-bit/bin/fluent-bit"]
CMD ["-c", "/fluent-bit/etc/fluent-bit.conf"]
