package clusteragent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/client-go/informers"

	"kelpie.dev/kelpie/clusteragent/metadata"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/state"
	"kelpie.dev/kelpie/datadog"
)

// newAutoscalers makes the one watch of HorizontalPodAutoscalers, which external
// metrics and the state metrics share.
func (a *agent) newAutoscalers() error {
	a.hpas = informers.NewSharedInformerFactory(a.kube, 0).Autoscaling().V2().HorizontalPodAutoscalers().Informer()
	trim := reference.Trim
	if a.cfg.State.Enabled {
		trim = state.TrimAutoscaler
	}
	if err := a.hpas.SetTransform(trim); err != nil {
		return fmt.Errorf("watch HorizontalPodAutoscalers: %w", err)
	}
	return nil
}

// autoscalers is the informer's cache as the state metrics read it.
type autoscalers struct{ *agent }

// List implements state.Autoscalers.
func (a autoscalers) List() []any { return a.hpas.GetStore().List() }

// HasSynced implements state.Autoscalers.
func (a autoscalers) HasSynced() bool { return a.hpas.HasSynced() }

func (a *agent) newState() error {
	intake, err := datadog.New(datadog.Options{
		BaseURL: a.cfg.State.Intake, APIKey: a.cfg.State.APIKey, UserAgent: "kelpie-cluster-agent/" + a.proc.Version, Timeout: a.cfg.Timeout,
	})
	if err != nil {
		return fmt.Errorf("intake of Kubernetes state metrics (DD_DD_URL, DD_SITE): %w", err)
	}
	a.state, err = state.New(state.Options{
		Apps: a.kube.AppsV1().RESTClient(), Autoscalers: autoscalers{a}, Intake: intake, IsLeader: a.leader.isLeader,
		Tags: a.cfg.State.Tags, Period: a.cfg.State.Period, Registerer: a.reg, Log: a.proc.Log,
	})
	return err // names itself
}

func (a *agent) newMetadata() error {
	a.metadata = metadata.NewIndex(a.kube)
	o := metadata.ServerOptions{
		Index: a.metadata, Token: a.cfg.AuthToken, Addr: ":" + strconv.Itoa(a.cfg.AgentPort),
		LegacyTLS: a.cfg.LegacyTLS, Registerer: a.reg, Log: a.proc.Log,
	}
	if a.keeper != nil {
		o.Certificate = a.servingCertificate
	}
	var err error
	a.agents, err = metadata.NewServer(o)
	return err // names itself
}

// servingCertificate is the one of the external metrics API: it is for the same
// Service.
func (a *agent) servingCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, key := a.keeper.CurrentCertKeyContent()
	if cert == nil {
		return nil, errors.New("no certificate to serve with yet")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	return &pair, nil
}
