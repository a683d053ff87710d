package externalmetrics

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// certManager is the annotation that cert-manager puts on the Secrets it fills.
const certManager = "cert-manager.io/certificate-name"

// found is what there is in the place of the Secret.
type found struct {
	object *unstructured.Unstructured // nil for none
	data   map[string][]byte
	ends   time.Time // of the certificate; zero when it is of no use
	theirs bool      // cert-manager's: not ours to write
	why    error     // why it must be written anew; nil when it need not
}

// Ensure loads the certificate from its Secret, which whichever replica comes
// first creates, and mends it if it is of no use or ends soon. What it cannot
// mend it says, and goes on serving with what it has.
func (k *Keeper) Ensure(ctx context.Context) error {
	client := k.opts.Client.Resource(secrets).Namespace(k.opts.Namespace)
	for {
		u, err := client.Get(ctx, k.opts.Secret, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			u, err = nil, nil
		}
		if err != nil {
			return fmt.Errorf("read the certificate's %s: %w", k.Name(), err)
		}
		f := k.judge(u, time.Now())
		if !f.ends.IsZero() {
			k.load(f.data, f.ends) // also one that ends soon: the renewal may fail
		}
		switch {
		case f.why == nil:
			return nil
		case f.theirs:
			err := k.theirs(f)
			k.sayCertificate(err.Error())
			return err
		}
		err = k.write(ctx, client, f)
		if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
			continue // another replica was first: use what it wrote
		}
		if err != nil {
			err = fmt.Errorf("write the certificate's %s, because %w: %w", k.Name(), f.why, err)
			k.sayCertificate(err.Error())
			return err
		}
	}
}

// theirs says who has to mend a Secret of cert-manager's.
func (k *Keeper) theirs(f found) error {
	if f.object == nil {
		return fmt.Errorf("%s does not exist yet, and cert-manager is to fill it: kubectl -n %s describe certificate says what it waits for",
			k.Name(), k.opts.Namespace)
	}
	return fmt.Errorf("%s is cert-manager's (annotation %s) and of no use: %w; mend the Certificate %q, "+
		"which must be for %s and come from an issuer that gives a ca.crt", k.Name(), certManager, f.why, f.object.GetAnnotations()[certManager], k.names()[0])
}

var errAbsent = errors.New("it does not exist")

// judge tells whether the Secret is of use.
func (k *Keeper) judge(u *unstructured.Unstructured, now time.Time) found {
	f := found{object: u, data: map[string][]byte{}, theirs: k.opts.Issued}
	if u == nil {
		f.why = errAbsent
		return f
	}
	f.theirs = f.theirs || u.GetAnnotations()[certManager] != ""
	raw, _, _ := unstructured.NestedStringMap(u.Object, "data")
	for key, v := range raw {
		if b, err := base64.StdEncoding.DecodeString(v); err == nil {
			f.data[key] = b
		}
	}
	leaf, err := usable(f.data, k.names()[0], now)
	if err != nil {
		f.why = err
		return f
	}
	f.ends = leaf.NotAfter
	left, ends := leaf.NotAfter.Sub(now), leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case !f.theirs && len(f.data[caKeyKey]) > 0:
		if left < renewBefore {
			f.why = fmt.Errorf("its certificate ends %s", ends)
			return f
		}
		k.sayCertificate("")
	case left < min(warnBefore, leaf.NotAfter.Sub(leaf.NotBefore)/5):
		// Without the authority's key the certificate is somebody else's to renew.
		k.sayCertificate(fmt.Sprintf("the certificate in %s ends %s and its authority's key is not there (ca.key): "+
			"who issued it must renew it, or delete the Secret to have a new one made", k.Name(), ends))
	default:
		k.sayCertificate("")
	}
	return f
}

func (k *Keeper) write(ctx context.Context, client dynamic.ResourceInterface, f found) error {
	fresh, err := issue(f.data, k.names(), time.Now())
	if err != nil {
		return err
	}
	encoded := map[string]any{}
	for key, v := range fresh {
		encoded[key] = base64.StdEncoding.EncodeToString(v)
	}
	k.opts.Log.Info("writing serving certificate", "secret", k.Name(), "because", f.why.Error())
	if f.object == nil {
		u := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeTLS), "data": encoded,
			"metadata": map[string]any{"namespace": k.opts.Namespace, "name": k.opts.Secret},
		}}
		_, err = client.Create(ctx, u, metav1.CreateOptions{})
		return err // Ensure branches on it and wraps it
	}
	f.object.Object["data"] = encoded // the version in it makes a concurrent write a conflict
	if _, err = client.Update(ctx, f.object, metav1.UpdateOptions{}); err != nil {
		return err // Ensure branches on it and wraps it
	}
	if f.ends.IsZero() {
		// No renewal, but somebody's edit undone: he wants to know.
		k.opts.Log.Warn("replaced a serving certificate that was of no use", "secret", k.Name(), "problem", f.why.Error())
		k.opts.TellDone(k.secretRef(), repaired, "the serving certificate was of no use and has been replaced: "+f.why.Error())
	}
	return nil
}

// sayCertificate records, logs and tells, once, what is wrong with the
// certificate.
func (k *Keeper) sayCertificate(wrong string) {
	k.mu.Lock()
	news := k.certificate != wrong
	k.certificate = wrong
	k.mu.Unlock()
	if news && wrong != "" {
		k.opts.Log.Warn("serving certificate", "problem", wrong)
		k.opts.Tell(k.secretRef(), badCertificate, wrong)
	}
}

func (k *Keeper) secretRef() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: k.opts.Namespace, Name: k.opts.Secret}
}
