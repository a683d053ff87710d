package main

import (
	"fmt"
	"net/http"
	"net/url"

	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	generatedcore "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/core"
	generatedcustom "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/custommetrics"
	generated "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/externalmetrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// handler returns the API server's chain around a provider, the same for both
// programs: the library's, without authentication and authorization.
func handler(custom provider.CustomMetricsProvider, external provider.ExternalMetricsProvider) (http.Handler, error) {
	config := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	config.LoopbackClientConfig = &rest.Config{Host: "https://localhost"}
	config.ExternalAddress = "localhost:443"
	definitions := func(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
		all := map[string]openapicommon.OpenAPIDefinition{}
		for _, get := range []openapicommon.GetOpenAPIDefinitions{
			generatedcore.GetOpenAPIDefinitions, generatedcustom.GetOpenAPIDefinitions, generated.GetOpenAPIDefinitions,
		} {
			for name, d := range get(ref) {
				all[name] = d
			}
		}
		return all
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	s, err := (&apiserver.Config{GenericConfig: &config.Config}).Complete(nil).New("bench", custom, external)
	if err != nil {
		return nil, fmt.Errorf("make an API server: %w", err)
	}
	return s.GenericAPIServer.PrepareRun().Handler, nil
}

// externalPath is the request for an external metric; label is key=value or "".
func externalPath(namespace, metric, label string) string {
	path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + namespace + "/" + metric
	if label != "" {
		path += "?labelSelector=" + url.QueryEscape(label)
	}
	return path
}
