# Two images from one file:
#
#   operator   from scratch, static: /yolo-operator, /yolo-agent and /yolo-fetch
#   trainer    from scratch with libtorch; --build-arg VARIANT=cpu (default) or cuda
#
#   docker build --target operator -t operator .
#   docker build --target trainer --build-arg VARIANT=cuda -t trainer:cuda .
#
# PREBUILT=0 compiles inside a Rust image. PREBUILT=1 copies what `make images` has built into
# target/image, for machines where no base image can be pulled; both ways run the same scripts.
ARG PREBUILT=0
ARG VARIANT=cpu

FROM docker.io/library/rust:1.95-bookworm AS build-0
ARG VARIANT
RUN apt-get update && apt-get install -y --no-install-recommends g++ nasm python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN scripts/build-binaries.sh && scripts/image-root.sh "$VARIANT" /image

FROM scratch AS build-1
COPY target/image /image

FROM build-${PREBUILT} AS build

FROM scratch AS operator
COPY --from=build /image/operator /
USER 65532:65532
ENTRYPOINT ["/yolo-operator"]

FROM scratch AS trainer
# libtorch apart from the program: a new program is a small layer.
COPY --from=build /image/trainer-libs /
COPY --from=build /image/trainer /
# Threads that wait by spinning take the CPU from the other worker of a shared node.
ENV PATH=/opt/yolo/bin OMP_WAIT_POLICY=PASSIVE
# NVIDIA's libraries look for each other here; the node's runtime brings the driver's.
ENV LD_LIBRARY_PATH=/opt/yolo/lib NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
ENTRYPOINT ["/opt/yolo/bin/yolo-trainer"]
