// Asks a backend everything about metrics with Datadog's JavaScript client. It
// gets the client's folder, the backend's URL, both keys and a bucket's time,
// and prints what it was answered as lines of JSON.
const [modules, url, api, app, bucket] = process.argv.slice(1);
const { client, v1, v2 } = require(modules + "/@datadog/datadog-api-client");
const at = Number(bucket);

const keys = (api, app) => {
  const c = client.createConfiguration({ authMethods: { apiKeyAuth: api, appKeyAuth: app }, serverIndex: 1 });
  c.setServerVariables({ protocol: "http", name: new URL(url).host });
  return c;
};
const configuration = keys(api, app);
const metrics = new v1.MetricsApi(configuration);
const newer = new v2.MetricsApi(configuration);
const hosts = new v1.HostsApi(configuration);
const tags = new v1.TagsApi(configuration);

const say = (call, answer) => console.log(JSON.stringify({ call, answer }));

async function main() {
  say("validate", await new v1.AuthenticationApi(configuration).validate());
  const series = (host, value) => ({
    metric: "queue.depth", type: 3, tags: ["env:prod"], unit: "byte", resources: [{ type: "host", name: host }],
    points: [0, 1, 2].map((i) => ({ timestamp: at + 10 * i, value: value * (i + 1) })),
  });
  say("submit", await newer.submitMetrics({ body: { series: [series("node-1", 1), series("node-2", 10)] } }));
  say("submit v1", await metrics.submitMetrics({ body: { series: [{ metric: "old.count", type: "count", points: [[at, 7]], host: "node-1" }] } }));
  const q = await metrics.queryMetrics({ from: at, to: at + 29, query: "sum:queue.depth{env:prod} by {host}.rollup(10)" });
  say("query", q.series.map((s) => [s.scope, s.interval, s.unit[0].name, s.pointlist.map((p) => p[1])]));
  const timeseries = await newer.queryTimeseriesData({
    body: {
      data: {
        type: "timeseries_request",
        attributes: {
          from: at * 1000, to: (at + 30) * 1000, interval: 10000, formulas: [{ formula: "b / a", limit: { count: 10, order: "asc" } }],
          queries: [{ dataSource: "metrics", name: "a", query: "avg:queue.depth{*} by {host}" }, { dataSource: "metrics", name: "b", query: "max:queue.depth{*} by {host}" }],
        },
      },
    },
  });
  const t = timeseries.data.attributes;
  say("timeseries", [t.series.map((s) => s.groupTags), t.times.length, t.values]);
  const scalar = await newer.queryScalarData({
    body: {
      data: {
        type: "scalar_request",
        attributes: {
          from: at * 1000, to: (at + 30) * 1000, formulas: [{ formula: "a" }],
          queries: [{ dataSource: "metrics", name: "a", query: "avg:queue.depth{*} by {host}.rollup(10)", aggregator: "sum" }],
        },
      },
    },
  });
  say("scalar", scalar.data.attributes.columns.map((c) => [c.name, c.type, c.values]));
  say("edit", await metrics.updateMetricMetadata({ metricName: "queue.depth", body: { description: "What waits", perUnit: "second" } }));
  say("describe", await metrics.getMetricMetadata({ metricName: "queue.depth" }));
  say("active", (await metrics.listActiveMetrics({ from: at, host: "node-2" })).metrics);
  say("search", (await metrics.listMetrics({ q: "metrics:old" })).results.metrics);
  const names = [];
  for await (const m of newer.listTagConfigurationsWithPagination({ pageSize: 1 })) names.push(m.id);
  say("list", names);
  say("all tags", (await newer.listTagsByMetricName({ metricName: "queue.depth" })).data.attributes.tags);
  say("volumes", (await newer.listVolumesByMetricName({ metricName: "queue.depth" })).data.attributes);
  say("estimate", (await newer.estimateMetricsOutputSeries({ metricName: "queue.depth", filterGroups: "host" })).data.attributes.estimatedOutputSeries);
  say("assets", (await newer.listMetricAssets({ metricName: "queue.depth" })).data.id);
  const attributes = { tags: ["env"], metricType: "gauge" };
  const data = { type: "manage_tags", id: "queue.depth" };
  say("configure", (await newer.createTagConfiguration({ metricName: "queue.depth", body: { data: { ...data, attributes } } })).data.attributes.tags);
  say("reconfigure", (await newer.updateTagConfiguration({ metricName: "queue.depth", body: { data: { ...data, attributes: { tags: ["host"] } } } })).data.attributes.tags);
  say("configuration", (await newer.listTagConfigurationByName({ metricName: "queue.depth" })).data.attributes.tags);
  await newer.deleteTagConfiguration({ metricName: "queue.depth" });
  say("hosts", (await hosts.listHosts({ filter: "node" })).hostList.map((h) => [h.name, h.up]));
  say("totals", await hosts.getHostTotals());
  say("host tags", (await tags.getHostTags({ hostName: "node-2" })).tags);
  say("tags of hosts", (await tags.listHostTags()).tags);
  for (const [name, ask] of Object.entries({
    "no configuration": () => newer.listTagConfigurationByName({ metricName: "queue.depth" }),
    "unknown metric": () => metrics.getMetricMetadata({ metricName: "none" }),
    syntax: () => metrics.queryMetrics({ from: at, to: at + 1, query: "avg:m{*" }),
    "wrong keys": () => new v1.MetricsApi(keys("wrong", "wrong")).listActiveMetrics({ from: at }),
  })) {
    try {
      say(name, await ask());
    } catch (e) {
      say(name, e.code);
    }
  }
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
