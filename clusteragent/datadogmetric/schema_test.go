package datadogmetric

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// What users write for an age either works or is refused at once with words: by
// the API server, which judges by the schema, or in the object's conditions.
func TestAgesAsUsersWriteThem(t *testing.T) {
	b, err := os.ReadFile("../../charts/kelpie/crds/datadoghq.com_datadogmetrics.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(b, &crd); err != nil {
		t.Fatal(err)
	}
	var schema apiextensions.CustomResourceValidation
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(crd.Spec.Versions[0].Schema, &schema, nil); err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ spec, server, object string }{
		{`maxAge: 300s`, "", ""},
		{`maxAge: 5m`, "", ""},
		{`maxAge: "300"`, "", ""},
		{`maxAge: 300`, "spec.maxAge: Invalid value", ""},
		{`timeWindow: 3600`, "spec.timeWindow: Invalid value", ""},
		{`maxAge: 1d`, "", "write a duration such as 90s, 5m or 1h, or whole seconds"},
		{`maxAge: five minutes`, "", "spec.maxAge is "},
	} {
		u := &unstructured.Unstructured{}
		text := "{apiVersion: datadoghq.com/v1alpha1, kind: DatadogMetric, metadata: {name: n, namespace: a}, spec: {query: q, " + c.spec + "}}"
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		refused := validation.ValidateCustomResource(field.NewPath(""), u.Object, validator).ToAggregate()
		if (refused == nil) != (c.server == "") || refused != nil && !strings.Contains(refused.Error(), c.server) {
			t.Errorf("%s: the API server's answer is %v, want %q", c.spec, refused, c.server)
		}
		problem := ""
		if o := decode(u, ""); o.problem != nil {
			problem = o.problem.Message
		}
		if (problem == "") != (c.object == "") || !strings.Contains(problem, c.object) {
			t.Errorf("%s: problem %q, want %q", c.spec, problem, c.object)
		}
	}
}
