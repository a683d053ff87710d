package clusteragent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"kelpie.dev/kelpie/clusteragent/metadata"
	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/clusteragent/state"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/env"
	"kelpie.dev/kelpie/metric"
)

// Config is the cluster agent's configuration. Names and defaults are those of
// Datadog's cluster agent wherever it has the setting.
type Config struct {
	Enabled bool // serve external metrics at all

	Endpoint string // base URL of the query API
	Ours     bool   // the endpoint is a Kelpie backend: its language is judged here
	APIKey   string
	AppKey   string
	Stream   bool   // values are pushed by a Kelpie backend, and polled only while they are not
	KeysHint string // where the keys are mended, for messages

	Sources SourcesConfig // that values come from, the above among them

	Interval time.Duration // between two polls of a query
	Timeout  time.Duration // of one request
	Batch    int           // queries a request
	Parallel int           // requests at once
	Rules    source.Rules

	Aggregator      string          // of generated queries
	CRD             bool            // DatadogMetric objects are served
	Autogen         bool            // plain metric names are served, and get objects in CRD mode
	AutogenSelector labels.Selector // whose plain metric names; by the autoscaler's labels
	AutogenExpiry   time.Duration   // life of a generated object after its last use
	Policy          *policy.Policy  // what namespaces may read
	Watermarks      bool            // WatermarkPodAutoscalers are read too
	Workers         int             // reconciling objects
	ClusterName     string          // for %%tag_kube_cluster_name%%
	TemplateEnv     []string        // variables that queries may read

	KEDA      KEDAConfig
	State     StateConfig
	AuthToken string // that node agents bear to ask for metadata; "" serves none
	AgentPort int    // for them

	Namespace  string // of generated objects, lease and Secret
	Identity   string // this replica's name
	Kubeconfig string // file; "" inside a cluster

	Port       int               // of the API
	Flags      map[string]string // generic API server flags
	LegacyTLS  bool              // TLS 1.2 too
	Linger     time.Duration     // how long requests are served after the signal to end
	TLSSecret  string            // of the serving certificate
	TLSIssued  bool              // cert-manager fills that Secret
	Service    string            // what the APIService points to
	HealthPort int               // health and metrics

	Election      bool          // without it this replica leads
	LeaseName     string        // of the leader's lease
	LeaseDuration time.Duration // how long a dead leader is waited for
	ReleaseLease  bool          // give the lease up on shutdown

	LogLevel string // debug, info, warn or error

	Unneeded []superfluous // settings that have no effect, and are set
}

// StateConfig is about the metrics of Kubernetes' objects.
type StateConfig struct {
	Enabled bool
	Intake  string        // base URL
	APIKey  string        // of the intake
	Period  time.Duration // between two samples
	Tags    metric.Tags   // on every series
}

// KEDAConfig is about KEDA's metrics server, for which we are the front door.
type KEDAConfig struct {
	URL     string // https://service.namespace.svc; "" without KEDA
	CAFile  string // PEM, of who signed its certificate
	Timeout time.Duration
}

// check returns what is wrong; own is the host name of our own Service.
func (c KEDAConfig) check(own string) error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "":
		return errors.New("KELPIE_KEDA_URL must be https://host[:port]: the Service of KEDA's metrics server")
	case u.Hostname() == own || strings.HasPrefix(u.Hostname(), own+"."):
		return fmt.Errorf("KELPIE_KEDA_URL names the cluster agent's own Service %s: requests would go round in circles", own)
	case c.CAFile == "":
		return errors.New("KELPIE_KEDA_URL needs KELPIE_KEDA_CA_FILE: the authority that signed the certificate of KEDA's metrics server")
	case c.Timeout <= 0:
		return errors.New("KELPIE_KEDA_TIMEOUT must be positive")
	}
	return nil
}

// intakeRelease is the release of Datadog's agent whose payloads are sent: the
// host name of a Datadog site's intake names one.
const intakeRelease = "7.85.0"

// prefix of the settings of the external metrics provider.
const emp = "DD_EXTERNAL_METRICS_PROVIDER_"

// FromEnv reads the configuration from environment variables. Variables that
// mean nothing here are ignored, as users set whatever Datadog documents.
func FromEnv(lookup func(string) (string, bool)) (Config, error) {
	r := env.New(lookup)
	site := r.String("datadoghq.com", "DD_SITE")
	c := Config{
		Enabled:  r.Bool(false, emp+"ENABLED"),
		Endpoint: r.String("", emp+"ENDPOINT", "DATADOG_HOST"),
		APIKey:   r.String(r.String("", "DD_API_KEY"), emp+"API_KEY"),
		AppKey:   r.String(r.String("", "DD_APP_KEY"), emp+"APP_KEY"),
		Stream:   r.Bool(true, "KELPIE_VALUE_STREAM"),
		KeysHint: "DD_API_KEY and DD_APP_KEY of the cluster agent",

		Interval: r.Seconds(30*time.Second, emp+"POLLING_INTERVAL", emp+"REFRESH_PERIOD"),
		Timeout:  r.Seconds(10*time.Second, "KELPIE_SOURCE_TIMEOUT"),
		Batch:    r.Int(35, emp+"CHUNK_SIZE"),
		Parallel: r.Int(10, emp+"MAX_PARALLEL_QUERIES"),
		Rules: source.Rules{
			MaxAge:        r.Seconds(120*time.Second, emp+"MAX_AGE"),
			QueryValidity: r.Seconds(30*time.Second, emp+"QUERY_VALIDITY_PERIOD"),
			BucketSize:    r.Seconds(300*time.Second, emp+"BUCKET_SIZE"),
			MaxTimeWindow: r.Seconds(24*time.Hour, emp+"MAX_TIME_WINDOW"),
			Rollup:        r.Seconds(30*time.Second, emp+"ROLLUP"),
		},

		Aggregator:    r.String("avg", "DD_EXTERNAL_METRICS_AGGREGATOR"),
		CRD:           r.Bool(false, emp+"USE_DATADOGMETRIC_CRD"),
		Autogen:       r.Bool(true, emp+"ENABLE_DATADOGMETRIC_AUTOGEN"),
		AutogenExpiry: r.Seconds(3*time.Hour, "KELPIE_AUTOGEN_EXPIRY"),
		Policy:        readPolicy(r),
		Watermarks:    r.Bool(false, emp+"WPA_CONTROLLER"),
		Workers:       r.Int(2, emp+"NUM_WORKERS"),
		ClusterName:   r.String("", "DD_CLUSTER_NAME"),
		TemplateEnv:   r.List("KELPIE_ALLOWED_TEMPLATE_ENV"),

		KEDA: KEDAConfig{
			URL: r.String("", "KELPIE_KEDA_URL"), CAFile: r.String("", "KELPIE_KEDA_CA_FILE"), Timeout: r.Seconds(5*time.Second, "KELPIE_KEDA_TIMEOUT"),
		},

		State:     stateConfig(r),
		AuthToken: r.String("", "DD_CLUSTER_AGENT_AUTH_TOKEN"),
		AgentPort: r.Int(metadata.DefaultPort, "DD_CLUSTER_AGENT_CMD_PORT"),

		Namespace: r.String(r.String("", "DD_POD_NAMESPACE"), "DD_KUBE_RESOURCES_NAMESPACE"),
		Identity:  r.String("", "DD_POD_NAME", "HOSTNAME"),

		Port:       r.Int(8443, emp+"PORT"),
		LegacyTLS:  r.Bool(false, "DD_CLUSTER_AGENT_ALLOW_LEGACY_TLS"),
		Linger:     r.Seconds(3*time.Second, "KELPIE_SHUTDOWN_LINGER"),
		Service:    r.String("datadog-cluster-agent", "KELPIE_APISERVICE_SERVICE"),
		HealthPort: r.Int(5556, "DD_HEALTH_PORT"),

		Election:      r.Bool(true, "DD_LEADER_ELECTION"),
		LeaseName:     r.String("datadog-leader-election", "DD_LEADER_LEASE_NAME"),
		LeaseDuration: r.Seconds(15*time.Second, "DD_LEADER_LEASE_DURATION"),
		ReleaseLease:  r.Bool(true, "DD_LEADER_ELECTION_RELEASE_ON_SHUTDOWN"),
		LogLevel:      r.String("info", "DD_LOG_LEVEL"),
	}
	c.TLSSecret = r.String(c.Service+"-tls", "KELPIE_TLS_SECRET")
	c.TLSIssued = r.Bool(false, "KELPIE_TLS_CERT_MANAGER")
	if hint := r.String("", "KELPIE_KEY_SECRET_HINT"); hint != "" {
		c.KeysHint = "the keys api-key and app-key in Secret " + hint
	}
	c.Unneeded = unneeded(r)
	c.complete(site)
	c.sourcesConfig(r, site)
	err := errors.Join(r.Err(), c.selector(r), c.flags(r), c.validate())
	return c, err
}

// readPolicy reads the policy. KELPIE_CROSS_NAMESPACE_METRICS=false is older and
// says, alone, what the mode namespaced says without rules.
func readPolicy(r *env.Reader) *policy.Policy {
	p, err := policy.Parse(r.String("", "KELPIE_POLICY"))
	if err != nil {
		r.Fail(fmt.Errorf("environment variable KELPIE_POLICY (Helm: clusterAgent.policy): %w", err))
		return nil
	}
	if !r.Bool(true, "KELPIE_CROSS_NAMESPACE_METRICS") {
		if p.Mode == policy.Open {
			r.Fail(errors.New("KELPIE_CROSS_NAMESPACE_METRICS=false contradicts policy.mode: open in KELPIE_POLICY: remove one of them"))
		}
		p.Mode = policy.Namespaced
	}
	return p
}

// stateConfig reads where the state metrics go. They are sent by default once
// somebody has said where to: without DD_DD_URL and DD_SITE nothing leaves.
func stateConfig(r *env.Reader) StateConfig {
	site := r.String("", "DD_SITE")
	c := StateConfig{
		APIKey: r.String("", "DD_API_KEY"),
		Intake: r.String("", "DD_DD_URL", "DD_URL"),
		Period: r.Seconds(state.DefaultPeriod, "KELPIE_KUBERNETES_STATE_INTERVAL"),
		Tags:   metric.NewTags(append(r.List("DD_TAGS"), r.List("DD_EXTRA_TAGS")...)...),
	}
	if c.Intake == "" && site != "" {
		c.Intake = datadog.IntakeURL(site, intakeRelease)
	}
	if cluster := r.String("", "DD_CLUSTER_NAME"); cluster != "" {
		c.Tags = c.Tags.Union("kube_cluster_name:"+cluster, "cluster_name:"+cluster)
	}
	c.Enabled = r.Bool(c.APIKey != "" && c.Intake != "", "DD_KUBE_STATE_METRICS_CORE_ENABLED")
	return c
}

// complete fills in what depends on other settings or on the pod.
func (c *Config) complete(site string) {
	api := datadog.APIURL(site)
	c.Ours = c.Endpoint != "" && !isDatadog(c.Endpoint) && strings.TrimSuffix(c.Endpoint, "/") != api
	if c.Endpoint == "" {
		c.Endpoint = api
	}
	if c.Namespace == "" {
		const file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
		if b, err := os.ReadFile(file); err == nil {
			c.Namespace = strings.TrimSpace(string(b))
		}
	}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	if c.Identity == "" {
		c.Identity, _ = os.Hostname() // validate names the setting when this fails too
	}
}

// isDatadog reports whether an endpoint is one of Datadog's own sites.
func isDatadog(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	return slices.ContainsFunc([]string{"datadoghq.com", "datadoghq.eu", "ddog-gov.com", "datad0g.com"}, func(site string) bool {
		return u.Hostname() == site || strings.HasSuffix(u.Hostname(), "."+site)
	})
}

func (c *Config) selector(r *env.Reader) error {
	const name = emp + "AUTOSCALER_AUTOGEN_LABEL_SELECTOR"
	text := r.String("", name, emp+"HPA_LABEL_SELECTOR")
	sel, err := labels.Parse(text)
	if err != nil {
		return fmt.Errorf("environment variable %s: expected a label selector: %w", name, err)
	}
	c.AutogenSelector = sel
	return nil
}

func (c *Config) flags(r *env.Reader) error {
	text := r.String("", emp+"CONFIG")
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &c.Flags); err != nil {
		return fmt.Errorf("environment variable %sCONFIG: expected a JSON object of strings: %w", emp, err)
	}
	return nil
}

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if c.Enabled && c.Sources.Main != source.Prometheus {
		check(c.APIKey != "", "no API key: set DD_API_KEY (Helm: datadog.apiKeyExistingSecret, key api-key)")
		check(c.AppKey != "", "no application key: set DD_APP_KEY (Helm: datadog.appKeyExistingSecret, key app-key); queries need one")
	}
	if err := c.KEDA.check(c.Service + "." + c.Namespace); err != nil {
		errs = append(errs, err)
	}
	if c.State.Enabled {
		check(c.State.APIKey != "", "no API key: set DD_API_KEY (Helm: datadog.apiKeyExistingSecret, key api-key), or DD_KUBE_STATE_METRICS_CORE_ENABLED=false")
		check(c.State.Intake != "", "no intake for Kubernetes state metrics: set DD_DD_URL or DD_SITE, or DD_KUBE_STATE_METRICS_CORE_ENABLED=false")
		check(c.State.Period >= time.Second, "KELPIE_KUBERNETES_STATE_INTERVAL must be at least one second")
	}
	check(c.AuthToken == "" || len(c.AuthToken) >= metadata.MinToken, "DD_CLUSTER_AGENT_AUTH_TOKEN must have at least %d characters", metadata.MinToken)
	check(c.AgentPort > 0 && c.AgentPort < 1<<16, "DD_CLUSTER_AGENT_CMD_PORT must be a port")
	check(c.Interval >= time.Second, "%sPOLLING_INTERVAL must be at least one second", emp)
	check(c.Rules.Rollup >= time.Second, "%sROLLUP must be at least one second", emp)
	check(c.LeaseDuration >= 3*time.Second, "DD_LEADER_LEASE_DURATION must be at least 3 seconds")
	check(c.Identity != "", "no name for this replica: set DD_POD_NAME")
	check(slices.Contains([]string{"avg", "min", "max", "sum"}, c.Aggregator), "DD_EXTERNAL_METRICS_AGGREGATOR must be avg, min, max or sum")
	errs = append(errs, c.Sources.validate())
	return errors.Join(errs...)
}
