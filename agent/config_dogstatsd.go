package agent

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/env"
	"kelpie.dev/kelpie/metric"
)

// DogStatsDConfig is about the sockets, and about what lines mean.
type DogStatsDConfig struct {
	UDPAddr       string      // "" for none: DD_DOGSTATSD_PORT (8125, 0 for none) on localhost, or DD_BIND_HOST, or every address with DD_DOGSTATSD_NON_LOCAL_TRAFFIC
	Socket        string      // path of the Unix datagram socket, "" for none: DD_DOGSTATSD_SOCKET (/var/run/datadog/dsd.socket)
	StreamSocket  string      // path of the Unix stream socket, "" for none: DD_DOGSTATSD_STREAM_SOCKET
	BufferSize    int         // bytes of the largest datagram: DD_DOGSTATSD_BUFFER_SIZE (8192)
	ReceiveBuffer int         // SO_RCVBUF, 0 for a default that holds a burst: DD_DOGSTATSD_SO_RCVBUF
	QueueSize     int         // datagrams between the sockets and the aggregator: DD_DOGSTATSD_QUEUE_SIZE (4096)
	Readers       int         // sockets that share the UDP port, 0 for as many as suit the machine: KELPIE_DOGSTATSD_UDP_READERS
	EOLRequired   []string    // udp, uds: where a line without a line feed at its end is dropped: DD_DOGSTATSD_EOL_REQUIRED
	Tags          metric.Tags // on every sample: DD_DOGSTATSD_TAGS
	// Rewrite is what becomes of names: DD_STATSD_METRIC_NAMESPACE,
	// DD_STATSD_METRIC_NAMESPACE_BLACKLIST, DD_STATSD_METRIC_BLOCKLIST,
	// DD_STATSD_METRIC_BLOCKLIST_MATCH_PREFIX, DD_DOGSTATSD_MAPPER_PROFILES.
	Rewrite dogstatsd.RewriteOptions
	// Copies makes every sample of a histogram one of a distribution, too, whose
	// name begins with CopyPrefix: DD_HISTOGRAM_COPY_TO_DISTRIBUTION (false),
	// DD_HISTOGRAM_COPY_TO_DISTRIBUTION_PREFIX.
	Copies     bool
	CopyPrefix string
}

// namespaceExempt are the beginnings of names that no namespace is put before,
// as upstream has them.
var namespaceExempt = []string{
	"datadog.agent", "datadog.dogstatsd", "datadog.process", "datadog.trace_agent", "datadog.tracer",
	"activemq", "activemq_58", "airflow", "cassandra", "confluent", "hazelcast", "hive", "ignite", "jboss",
	"jvm", "kafka", "presto", "sidekiq", "solr", "tomcat", "runtime",
}

func dogstatsdConfig(r *env.Reader) (DogStatsDConfig, error) {
	c := DogStatsDConfig{
		Socket:        r.StringOrEmpty("/var/run/datadog/dsd.socket", "DD_DOGSTATSD_SOCKET"),
		StreamSocket:  r.String("", "DD_DOGSTATSD_STREAM_SOCKET"),
		BufferSize:    r.Int(dogstatsd.DefaultBufferSize, "DD_DOGSTATSD_BUFFER_SIZE"),
		ReceiveBuffer: r.Int(0, "DD_DOGSTATSD_SO_RCVBUF"),
		QueueSize:     r.Int(dogstatsd.DefaultQueueSize, "DD_DOGSTATSD_QUEUE_SIZE"),
		Readers:       r.Int(0, "KELPIE_DOGSTATSD_UDP_READERS"),
		EOLRequired:   r.List("DD_DOGSTATSD_EOL_REQUIRED"),
		Tags:          metric.NewTags(r.List("DD_DOGSTATSD_TAGS")...),
		Copies:        r.Bool(false, "DD_HISTOGRAM_COPY_TO_DISTRIBUTION"),
		CopyPrefix:    r.String("", "DD_HISTOGRAM_COPY_TO_DISTRIBUTION_PREFIX"),
	}
	host := r.String("localhost", "DD_BIND_HOST")
	if r.Bool(false, "DD_DOGSTATSD_NON_LOCAL_TRAFFIC") {
		host = ""
	}
	udp, err := port(r, 8125, "DD_DOGSTATSD_PORT")
	if udp != 0 {
		c.UDPAddr = net.JoinHostPort(host, strconv.Itoa(udp))
	}
	if !r.Bool(true, "DD_USE_DOGSTATSD") {
		c.UDPAddr, c.Socket, c.StreamSocket = "", "", ""
	}
	for _, word := range c.EOLRequired {
		switch word {
		case "udp", "uds", "named_pipe": // the last means nothing here
		default:
			err = errors.Join(err, fmt.Errorf("environment variable DD_DOGSTATSD_EOL_REQUIRED: %q: expected udp or uds", word))
		}
	}
	var rewriteErr error
	c.Rewrite, rewriteErr = rewriteConfig(r)
	return c, errors.Join(err, rewriteErr)
}

func rewriteConfig(r *env.Reader) (dogstatsd.RewriteOptions, error) {
	o := dogstatsd.RewriteOptions{
		Namespace:       r.String("", "DD_STATSD_METRIC_NAMESPACE"),
		Exempt:          r.List("DD_STATSD_METRIC_NAMESPACE_BLACKLIST"),
		Blocked:         r.List("DD_STATSD_METRIC_BLOCKLIST"),
		BlockedPrefixes: r.Bool(false, "DD_STATSD_METRIC_BLOCKLIST_MATCH_PREFIX"),
	}
	if o.Exempt == nil {
		o.Exempt = namespaceExempt
	}
	if text := r.String("", "DD_DOGSTATSD_MAPPER_PROFILES"); text != "" {
		profiles, err := dogstatsd.ParseMapperProfiles(text)
		if err != nil {
			return o, fmt.Errorf("environment variable DD_DOGSTATSD_MAPPER_PROFILES: %w", err)
		}
		o.Profiles = profiles
	}
	if _, err := dogstatsd.NewRewriter(o); err != nil {
		return o, fmt.Errorf("environment variable DD_DOGSTATSD_MAPPER_PROFILES: %w", err)
	}
	return o, nil
}
