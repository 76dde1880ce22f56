# A PACS for demonstrations: Debian's Orthanc and its DICOMweb plugin, the ones that the tests run against.
#   docker compose --profile pacs up
# Not for patients: docker/pacs/orthanc.json asks for no account.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The base of the service's image, so that nothing else is downloaded; its Python asks for the health.
FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends orthanc orthanc-dicomweb \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 pacs \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pacs \
 && install --directory --owner pacs --group pacs /var/lib/orthanc /var/lib/orthanc/db
USER 10001:10001
EXPOSE 8042
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8042/system', timeout=4)"]
ENTRYPOINT ["Orthanc", "/etc/orthanc/orthanc.json"]
