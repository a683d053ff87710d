"""The same application in Python: answers "Hello!" and counts its requests."""

import os

from datadog import initialize, statsd
from flask import Flask

TAGS = ["kube_namespace:test", "kube_deployment:test-metric-app"]

initialize(
    statsd_host=os.environ.get("DD_AGENT_HOST") or "localhost",
    statsd_port=int(os.environ.get("DD_DOGSTATSD_PORT") or 8125),
)
app = Flask(__name__)


@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
def hello(path):
    statsd.increment("flask.request.rate", tags=TAGS)
    return "Hello!\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000)
