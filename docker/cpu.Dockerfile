# The service on CPUs: vLLM's CPU build, our wheel, and the small demonstration checkpoint inside it.
#   docker build --file docker/cpu.Dockerfile --tag medmoe-serve:cpu .
# With --build-arg WITH_RAY=1 also for the actors of `medmoe batch --ray`.
# Not in it: keys, and MEDMOE_INSECURE. A container that was given neither refuses to start.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
# Where torch's CPU build is found; left empty, torch comes from the registry with several GB of CUDA libraries.
ARG PIP_FIND_LINKS=
ARG PIP_TRUSTED_HOST=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY docker/requirements/serve-cpu.txt /requirements.txt
# In the order, and for the reasons, of the Makefile. pip compiles bytecode: a read-only container never could.
# What is removed is for compiling and testing torch, which nothing here does.
RUN python -m venv --without-pip /opt/medmoe \
 && pip --python /opt/medmoe/bin/python install --constraint /requirements.txt torch \
 && pip --python /opt/medmoe/bin/python install --no-deps --requirement /requirements.txt \
 && rm -rf /opt/medmoe/lib/python3.11/site-packages/torch/include /opt/medmoe/lib/python3.11/site-packages/torch/test
ARG WITH_RAY=
COPY docker/requirements/ray.txt /ray.txt
RUN if [ -n "${WITH_RAY}" ]; then \
        pip --python /opt/medmoe/bin/python install --constraint /requirements.txt --requirement /ray.txt; \
    fi

FROM packages AS project
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY server server
COPY training training
RUN pip --python /opt/medmoe/bin/python install --no-deps --no-build-isolation --target /opt/project .

FROM ${PYTHON_IMAGE}
# libnuma is the one library that vLLM's CPU kernels take from the system. Pinning it would break the build with each of
# Debian's own corrections.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libnuma1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 medmoe \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin medmoe
COPY --from=packages /opt/medmoe /opt/medmoe
# A layer of its own: a change of ours does not move gigabytes.
COPY --from=project /opt/project /opt/project
# KubeRay calls ray through a login shell, which forgets PATH.
RUN echo /opt/project > /opt/medmoe/lib/python3.11/site-packages/medmoe.pth \
 && if [ -e /opt/medmoe/bin/ray ]; then ln -s /opt/medmoe/bin/ray /usr/local/bin/ray; fi
# Libraries cache under HOME; /tmp is the one place that a read-only container has.
ENV PATH=/opt/medmoe/bin:/opt/project/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDMOE_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
# A long start period delays nothing: the first answer ends it, and a start that fails ends the process.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-m", "medmoe.server.healthcheck"]
ENTRYPOINT ["python", "-m", "medmoe.server"]
