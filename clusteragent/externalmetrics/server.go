package externalmetrics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd/options"
	generatedcore "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/core"
	generated "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/externalmetrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// title names the API in its OpenAPI document; it is Datadog's.
const title = "datadog-custom-metrics-adapter"

// ServerOptions configures a Server. Config, Provider and Certificate are required.
type ServerOptions struct {
	Config         *rest.Config // the Kubernetes API server that authenticates and authorizes
	Kubeconfig     string       // the file that Config came from; "" inside a cluster
	Port           int          // used when Listener is nil
	Listener       net.Listener // listens instead of Port
	Provider       provider.ExternalMetricsProvider
	Certificate    dynamiccertificates.CertKeyContentProvider
	LegacyTLS      bool                   // allow TLS 1.2
	Linger         time.Duration          // serve on after Run's context ends, until nobody is routed here
	Flags          map[string]string      // generic API server flags, such as secure-port
	Serving        func()                 // called once requests are served; nil for nobody
	Authorizations *prometheus.CounterVec // counts them; see Provider.Authorizations. nil for nobody
}

// Server is an aggregated API server.
type Server struct {
	server *genericapiserver.GenericAPIServer
}

// NewServer returns a Server. It reads how to authenticate callers from the
// Kubernetes API server, and opens its port; it serves once Run is called.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Config == nil || o.Provider == nil || o.Certificate == nil {
		return nil, errors.New("new external metrics server: Config, Provider and Certificate are required")
	}
	opts, err := serverFlags(o)
	if err != nil {
		return nil, err
	}
	if errs := opts.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("external metrics server: %w", errors.Join(errs...))
	}
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("external metrics server: Kubernetes client: %w", err)
	}
	// The factory is what the library asks for; nothing of ours is watched by it.
	factory := informers.NewSharedInformerFactory(client, 0)
	config := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	config.ClientConfig, config.SharedInformerFactory = o.Config, factory
	if err := opts.ApplyTo(config); err != nil {
		return nil, fmt.Errorf("external metrics server on port %d: %w (delegated authentication needs the role "+
			"extension-apiserver-authentication-reader in kube-system and system:auth-delegator)", o.Port, err)
	}
	config.ShutdownDelayDuration = o.Linger
	markProxied(&config.Authentication)
	if config.Authorization.Authorizer != nil {
		fresh := allowFresh
		if _, given := o.Flags["authorization-webhook-cache-authorized-ttl"]; given {
			fresh = opts.Authorization.AllowCacheTTL
		}
		config.Authorization.Authorizer = wideFirst(remember(config.Authorization.Authorizer, fresh, time.Now, o.Authorizations))
	}
	if own := opts.SecureServing.ServerCert; own.CertKey.CertFile == "" {
		// Set last: the options put a certificate of their own where no file is given.
		config.SecureServing.Cert = o.Certificate
	}
	s, err := (&apiserver.Config{GenericConfig: &config.Config}).Complete(factory).New(title, nil, o.Provider)
	if err != nil {
		return nil, fmt.Errorf("external metrics server: %w", err)
	}
	if o.Serving != nil {
		hook := func(genericapiserver.PostStartHookContext) error { o.Serving(); return nil }
		if err := s.GenericAPIServer.AddPostStartHook("kelpie-serving", hook); err != nil {
			return nil, fmt.Errorf("external metrics server: %w", err)
		}
	}
	return &Server{server: s.GenericAPIServer}, nil
}

func serverFlags(o ServerOptions) (*options.CustomMetricsAdapterServerOptions, error) {
	opts := options.NewCustomMetricsAdapterServerOptions()
	opts.SecureServing.BindPort = o.Port
	opts.SecureServing.Listener = o.Listener
	opts.SecureServing.ServerCert.CertDirectory = "" // nothing is written: the root file system is read-only
	if !o.LegacyTLS {
		opts.SecureServing.MinTLSVersion = "VersionTLS13"
	}
	opts.Authentication.RemoteKubeConfigFile = o.Kubeconfig
	opts.Authorization.RemoteKubeConfigFile = o.Kubeconfig
	opts.Features.EnableProfiling = false
	definitions := func(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
		all := generatedcore.GetOpenAPIDefinitions(ref)
		maps.Copy(all, generated.GetOpenAPIDefinitions(ref))
		return all
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme)
	opts.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	opts.OpenAPIConfig.Info.Title, opts.OpenAPIConfig.Info.Version = title, "1.0.0"
	opts.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	opts.OpenAPIV3Config.Info.Title, opts.OpenAPIV3Config.Info.Version = title, "1.0.0"

	flags := pflag.NewFlagSet(title, pflag.ContinueOnError)
	opts.AddFlags(flags)
	for _, name := range slices.Sorted(maps.Keys(o.Flags)) {
		if err := flags.Set(name, o.Flags[name]); err != nil {
			return nil, fmt.Errorf("DD_EXTERNAL_METRICS_PROVIDER_CONFIG: flag %s of the API server: %w", name, err)
		}
	}
	return opts, nil
}

// Run serves until ctx ends, and for the time to linger after that.
func (s *Server) Run(ctx context.Context) error {
	if err := s.server.PrepareRun().RunWithContext(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve external metrics: %w", err)
	}
	return nil
}
