FROM python:3.13-slim

WORKDIR /app

# Before the code, which changes more often: this layer then stays cached.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY service.py settings.py ./
COPY handlers handlers

# Not root. By number, since Kubernetes' runAsNonRoot can't check names.
USER 10001:10001

ENV HOST=0.0.0.0
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import http.client, os; there = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=4); there.request('GET', '/healthz'); raise SystemExit(there.getresponse().status != 200)"]

# Without a shell, which would not pass SIGTERM on. `docker stop -t 30` waits 30 s.
CMD ["python", "service.py"]
