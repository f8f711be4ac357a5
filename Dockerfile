# relaymail, with everything set by environment variables; docs/how-to/container.md says how to run it
FROM python:3.11-slim AS build
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY relaymail relaymail
COPY twisted twisted
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .
# The list of plugins is written here, since the user of the image may not; and nothing installs there
RUN python3 -m venv /opt/relaymail \
    && /opt/relaymail/bin/pip install --no-cache-dir "$(echo /dist/relaymail-*.whl)[embedded,otel]" \
    && /opt/relaymail/bin/twistd --help >/dev/null \
    && rm -rf /opt/relaymail/bin/pip* /opt/relaymail/lib/python3*/site-packages/pip*

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && groupadd --gid 10025 relaymail \
    && useradd --uid 10025 --gid 10025 --no-create-home --home-dir /var/lib/relaymail --shell /usr/sbin/nologin relaymail \
    && install --directory --owner=10025 --group=10025 --mode=0700 /var/lib/relaymail
COPY --from=build /opt/relaymail /opt/relaymail
ENV PATH=/opt/relaymail/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    Data__Directory=/var/lib/relaymail \
    HealthCheck__Url=http://+:8081
USER 10025:10025
WORKDIR /var/lib/relaymail
VOLUME /var/lib/relaymail
EXPOSE 25 465 587 8081
STOPSIGNAL SIGTERM
# The whole report: Unhealthy answers 503, and curl then fails
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD curl -sf http://localhost:8081/healthz || exit 1
ENTRYPOINT ["twistd", "-n", "relaymail"]
