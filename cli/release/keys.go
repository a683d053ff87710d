package release

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A Key is an API or application key and where it stands. It prints, logs and
// encodes as its origin, never as itself.
type Key struct {
	secret string
	origin string
}

// NewKey returns a key that comes from origin, such as "the environment variable DD_API_KEY".
func NewKey(secret, origin string) Key { return Key{strings.TrimSpace(secret), origin} }

// Reveal returns the key itself, for the header that carries it.
func (k Key) Reveal() string { return k.secret }

// Set reports whether there is a key.
func (k Key) Set() bool { return k.secret != "" }

// String returns where the key stands.
func (k Key) String() string { return k.origin }

// GoString keeps %#v from printing the key.
func (k Key) GoString() string { return k.origin }

// LogValue keeps the key out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.origin) }

// MarshalText keeps the key out of JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.origin), nil }

// Keys authenticate a part of the installation.
type Keys struct{ API, App Key }

// Names of the variables by which each role takes its keys, as Datadog's do.
var (
	apiKeyNames = []string{"DD_EXTERNAL_METRICS_PROVIDER_API_KEY", "DD_API_KEY"}
	appKeyNames = []string{"DD_EXTERNAL_METRICS_PROVIDER_APP_KEY", "DD_APP_KEY"}
)

// KeysOf returns the keys that a role's pods are given at their start. A key
// that the pods do not take is not Set, and its origin says so.
func (r *Release) KeysOf(ctx context.Context, reader client.Reader, pod *corev1.PodSpec) (Keys, error) {
	api, err := r.key(ctx, reader, pod, apiKeyNames)
	if err != nil {
		return Keys{}, err
	}
	app, err := r.key(ctx, reader, pod, appKeyNames)
	return Keys{API: api, App: app}, err
}

func (r *Release) key(ctx context.Context, reader client.Reader, pod *corev1.PodSpec, names []string) (Key, error) {
	for _, name := range names {
		v := envVar(pod, name)
		switch {
		case v == nil:
		case v.Value != "":
			return NewKey(v.Value, "the value of "+name+" in the pod's spec"), nil
		case v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil:
			return r.secretKey(ctx, reader, v.ValueFrom.SecretKeyRef)
		}
	}
	return Key{origin: names[len(names)-1] + ", which the pod's spec does not set"}, nil
}

func (r *Release) secretKey(ctx context.Context, reader client.Reader, ref *corev1.SecretKeySelector) (Key, error) {
	origin := fmt.Sprintf("Secret %s/%s, key %s", r.Namespace, ref.Name, ref.Key)
	var s corev1.Secret
	if err := reader.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: ref.Name}, &s); err != nil {
		return Key{origin: origin}, fmt.Errorf("read %s: %w", origin, err)
	}
	return NewKey(string(s.Data[ref.Key]), origin), nil
}
