# The service on NVIDIA GPUs: vLLM's CUDA build from the registry, and our wheel on top.
#   docker build --file docker/gpu.Dockerfile --tag medmoe-serve:gpu .
# On vLLM's own image instead, which has FlashInfer's compiled kernels:
#   docker build --file docker/gpu.Dockerfile --build-arg BASE=vllm/vllm-openai:v0.30.0 --tag medmoe-serve:gpu .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG BASE=registry

FROM ${PYTHON_IMAGE} AS wheel
ARG PIP_FIND_LINKS=
ARG PIP_TRUSTED_HOST=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY docker/requirements/serve-cpu.txt /requirements.txt
RUN pip install --constraint /requirements.txt setuptools
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY server server
COPY training training
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# About 9 GB: torch and NVIDIA's libraries come with vLLM. Triton builds its launcher with gcc, Inductor with g++.
FROM ${PYTHON_IMAGE} AS registry
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma1 \
 && rm -rf /var/lib/apt/lists/* \
 && pip install vllm==0.30.0

# Installed by the Python that will run it, and without the wheel itself in the image.
FROM ${BASE} AS project
COPY --from=wheel /wheels /wheels
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir --no-deps --target /opt/project /wheels/*.whl

# torch, vLLM and kernels belong together and stay as they are: only what is missing is added, pinned, by name.
FROM ${BASE}
ARG PIP_FIND_LINKS=
ARG PIP_TRUSTED_HOST=
# hadolint ignore=DL3002
USER 0
COPY docker/requirements/gpu.txt /requirements.txt
COPY --from=project /opt/project /opt/project
# The last pip installs nothing: it fails when something that the project asks for is missing or too old.
# hadolint ignore=DL3013
RUN export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1 \
 && python3 -m pip install --no-deps --requirement /requirements.txt \
 && echo /opt/project > "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/medmoe.pth" \
 && python3 -m pip install --dry-run --no-index 'medmoe[serve]' \
 && groupadd --gid 10001 medmoe \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/medmoe --shell /usr/sbin/nologin medmoe \
 && install --directory --owner medmoe --group medmoe /var/cache/medmoe \
 && rm /requirements.txt
# Compiled kernels and graphs are kept under HOME, in a volume: made anew they cost minutes at every start.
ENV PATH=/opt/project/bin:$PATH \
    HOME=/var/cache/medmoe \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDMOE_HOST=0.0.0.0
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python3", "-m", "medmoe.server.healthcheck"]
ENTRYPOINT ["python3", "-m", "medmoe.server"]
