# Two images of one recipe: `docker build .` for a CPU, `docker build --target cuda .` for an NVIDIA GPU.
# Neither holds weights but the demo's; others are kept in /cache.

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY grounded_seg ./grounded_seg
COPY checkpoints/demo ./checkpoints/demo
COPY examples/scene-1.jpg ./examples/scene-1.jpg
RUN pip install --no-cache-dir "hatchling==1.33.0" && python -m hatchling build --target wheel

FROM python:3.12-slim-bookworm AS base
# What OpenCV needs. Debian keeps only the newest of each, so a pinned version would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 labels \
    && mkdir /cache /data \
    && chown labels /cache /data \
    && chmod 1777 /cache /data
ENV GROUNDED_SEG_CACHE=/cache/grounded-seg HF_HOME=/cache/huggingface HF_HUB_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1
COPY --from=wheel /src/dist /wheels
ARG EXTRAS=serve

FROM base AS cuda
ARG EXTRAS
# PyPI's torch for Linux brings CUDA; the driver is the host's. The wheel names the other packages' versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "torch==2.15.0" "torchvision==0.29.2" \
    && pip install --no-cache-dir "$(ls /wheels/*.whl)[$EXTRAS]"
USER 1000
WORKDIR /data
ENTRYPOINT ["grounded-seg"]
CMD ["--help"]

# The last stage is the one that `docker build .` makes.
FROM base AS cpu
ARG EXTRAS
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==2.15.0" "torchvision==0.29.2" \
    && pip install --no-cache-dir "$(ls /wheels/*.whl)[$EXTRAS]"
USER 1000
WORKDIR /data
ENTRYPOINT ["grounded-seg"]
CMD ["--help"]
