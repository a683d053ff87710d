package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"kelpie.dev/kelpie/bench/process"
)

// reader is who asks: the service account of the HPA controller, with the right
// that the chart gives it.
const reader = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"

// A kubernetesAPI is a real etcd and kube-apiserver, without controllers.
type kubernetesAPI struct {
	env        *envtest.Environment
	config     *rest.Config
	kube       *kubernetes.Clientset
	dynamic    dynamic.Interface
	kubeconfig string
	proxy      tls.Certificate // proves who forwards requests: the API server itself
}

func (r *run) startAPI(ctx context.Context) (*kubernetesAPI, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set: it names a directory with kube-apiserver and etcd, which bin/lab builds; make bench-provider sets it")
	}
	dir := r.file("api")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start kube-apiserver: %w", err)
	}
	k := &kubernetesAPI{env: &envtest.Environment{
		ControlPlaneStopTimeout: 30 * time.Second, CRDDirectoryPaths: []string{filepath.Join(r.builder.Kelpie, "charts", "kelpie", "crds")}, ErrorIfCRDPathMissing: true,
	}}
	var err error
	if k.proxy, err = frontProxy(dir); err != nil {
		return nil, err
	}
	k.env.ControlPlane.GetAPIServer().Configure().
		Set("requestheader-client-ca-file", filepath.Join(dir, "ca.crt")).
		Set("requestheader-allowed-names", "front-proxy").
		Set("requestheader-username-headers", "X-Remote-User").
		Set("requestheader-group-headers", "X-Remote-Group").
		Set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
	if k.config, err = k.env.Start(); err != nil {
		return nil, fmt.Errorf("start kube-apiserver: %w", err)
	}
	if err := k.prepare(ctx, dir); err != nil {
		return nil, errors.Join(err, k.stop())
	}
	return k, nil
}

func (k *kubernetesAPI) stop() error {
	if err := k.env.Stop(); err != nil {
		return fmt.Errorf("stop kube-apiserver: %w", err)
	}
	return nil
}

func (k *kubernetesAPI) prepare(ctx context.Context, dir string) (err error) {
	k.config.QPS, k.config.UserAgent = -1, "bench"
	k.kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(k.kubeconfig, k.env.KubeConfig, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	if k.kube, err = kubernetes.NewForConfig(k.config); err != nil {
		return fmt.Errorf("connect to kube-apiserver: %w", err)
	}
	if k.dynamic, err = dynamic.NewForConfig(k.config); err != nil {
		return fmt.Errorf("connect to kube-apiserver: %w", err)
	}
	names := []string{"datadog"}
	for i := range namespaces {
		names = append(names, namespaceOf(i))
	}
	for _, name := range names {
		if _, err := k.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "external-metrics-reader"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{"external.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}}}}
	if _, err := k.kube.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the reader's role: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: reader}}}
	if _, err := k.kube.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("give the reader its role: %w", err)
	}
	return nil
}

// A requestCount is what kube-apiserver has answered so far.
type requestCount struct {
	statusWrites, reviews float64 // of DatadogMetrics; SubjectAccessReviews
}

func (k *kubernetesAPI) requests(ctx context.Context) (c requestCount, err error) {
	text, err := k.kube.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return c, fmt.Errorf("scrape kube-apiserver: %w", err)
	}
	err = process.ReadSamples(bytes.NewReader(text), func(s process.Sample) {
		if s.Name != "apiserver_request_total" {
			return
		}
		switch {
		case strings.Contains(s.Labels, `resource="datadogmetrics"`) && strings.Contains(s.Labels, `subresource="status"`):
			c.statusWrites += s.Value
		case strings.Contains(s.Labels, `resource="subjectaccessreviews"`):
			c.reviews += s.Value
		}
	})
	return c, err
}

// frontProxy writes the authority of who forwards requests, and returns its
// certificate.
func frontProxy(dir string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front-proxy-ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(12 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "front-proxy"}, NotBefore: ca.NotBefore,
		NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	file := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		return tls.Certificate{}, fmt.Errorf("write %s: %w", file, err)
	}
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}, nil
}
