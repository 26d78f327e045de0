# The image starts safely: `--auth token` makes a token at the first start and prints it once to
# the log. Everything that must last, uploads and the journal alike, lies in the volume /data.
#
#   scripts/image                              (builds, tries, and leaves the image `upload-gateway`)
#   docker build -t upload-gateway .           (builds it only)
#   docker run -p 8080:8080 -v uploads:/data upload-gateway
#   docker run ... upload-gateway serve --plugins builtin:quickstart      (no plugin is active by itself)
#   docker exec CONTAINER gateway events list
#   docker run ... upload-gateway worker --events nats://n1,n2,n3 --plugins /plugins/mine

# The Python that the tests run on. Another base needs `python` 3.11 with venv, and useradd.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml setup.cfg setup.py README.md ./
COPY gateway ./gateway
COPY plugins ./plugins
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check \
        ".[filetype,heic,nats,otel,photos,postgres]"

FROM ${BASE}
COPY --from=build /opt/gateway /opt/gateway
COPY plugins /plugins
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
    && install -d -o 10001 -g 10001 -m 0750 /data
# So that other verbs and other flags find the same installation.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    UPLOAD_GATEWAY_DIRECTORY=/data \
    UPLOAD_GATEWAY_HOST=0.0.0.0 \
    UPLOAD_GATEWAY_AUTH=token
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/-/health', timeout=4)"]
ENTRYPOINT ["gateway"]
CMD ["serve", "--directory", "/data", "--host", "0.0.0.0", "--port", "8080", "--auth", "token"]
