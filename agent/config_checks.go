package agent

import (
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/env"
)

// ChecksConfig is about the checks.
type ChecksConfig struct {
	Dir         string             // of configuration files: DD_CONFD_PATH (/etc/datadog-agent/conf.d)
	Kubelet     bool               // container.* and kubernetes.* of this node's kubelet: KELPIE_KUBELET_CHECK (true)
	Discover    bool               // run what annotations of this node's pods ask for: DD_AUTODISCOVERY (true)
	AnyTarget   bool               // annotations may name other addresses than their pod's: KELPIE_CHECKS_ANY_TARGET (false)
	PodEnv      []string           // variables of the agent that annotations may read: KELPIE_CHECKS_POD_ENV
	Cardinality origin.Cardinality // of the tags of the pod that is watched: DD_CHECKS_TAG_CARDINALITY (low)
}

func checksConfig(r *env.Reader) ChecksConfig {
	level, err := cardinality("DD_CHECKS_TAG_CARDINALITY", r.String("", "DD_CHECKS_TAG_CARDINALITY"), "low")
	r.Fail(err)
	return ChecksConfig{
		Dir:         r.String("/etc/datadog-agent/conf.d", "DD_CONFD_PATH"),
		Kubelet:     r.Bool(true, "KELPIE_KUBELET_CHECK"),
		Discover:    r.Bool(true, "DD_AUTODISCOVERY"),
		AnyTarget:   r.Bool(false, "KELPIE_CHECKS_ANY_TARGET"),
		PodEnv:      r.List("KELPIE_CHECKS_POD_ENV"),
		Cardinality: level,
	}
}
