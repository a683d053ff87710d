// Package mirror keeps, of the API server's objects of one kind, only what its
// reader wants of them: a row of a few dozen bytes where the object has kilobytes.
//
// It owns the watch and the rows. It does not know what the rows mean, and it
// never writes to the API server.
package mirror

import (
	"context"
	"fmt"
	"iter"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A Key names an object. Namespace is "" for objects of the whole cluster.
type Key struct{ Namespace, Name string }

// String returns namespace/name, or the name alone.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// An Object is a pointer to a type of the Kubernetes API.
type Object interface {
	runtime.Object
	metav1.Object
}

// Options configures a Mirror. All but Trim and Changed are required.
type Options[O Object, R any] struct {
	Client   rest.Interface // of the API group and version
	Resource string         // such as "deployments"
	Example  O              // names the type: &appsv1.Deployment{}
	// Pick returns the row of an object, or false when it is not wanted. The row
	// must not keep memory of the object but its strings.
	Pick func(O) (R, bool)
	// Trim drops what Pick does not read. While the first list streams in, whole
	// objects are held; their managed fields are dropped anyway.
	Trim func(O)
	// Changed is told each row that came (before is nil), changed or went (after
	// is nil), one at a time. It must not call the Mirror.
	Changed func(k Key, before, after *R)
}

// A Mirror holds the rows of one kind of object. Its methods may be called
// concurrently; Run once.
type Mirror[O Object, R any] struct {
	o Options[O, R]

	mu     sync.RWMutex // guards what follows
	rows   map[Key]R
	synced bool
}

// New returns a Mirror that is empty until Run.
func New[O Object, R any](o Options[O, R]) *Mirror[O, R] {
	return &Mirror[O, R]{o: o, rows: map[Key]R{}}
}

// Run follows the API server until ctx ends. What goes wrong meanwhile it logs
// as client-go does, and tries again with backoff.
func (m *Mirror[O, R]) Run(ctx context.Context) {
	lw := cache.NewListWatchFromClient(m.o.Client, m.o.Resource, metav1.NamespaceAll, fields.Everything())
	cache.NewReflectorWithOptions(lw, m.o.Example, m.Store(), cache.ReflectorOptions{Name: "mirror of " + m.o.Resource}).RunWithContext(ctx)
}

// Store returns what the watch writes to.
func (m *Mirror[O, R]) Store() cache.TransformingStore { return store[O, R]{m} }

// Resource names what is mirrored, such as "deployments".
func (m *Mirror[O, R]) Resource() string { return m.o.Resource }

// Synced reports whether the first list is complete: from then on what is not
// here does not exist.
func (m *Mirror[O, R]) Synced() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.synced
}

// Len returns the number of rows.
func (m *Mirror[O, R]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.rows)
}

// Get returns the row of one object.
func (m *Mirror[O, R]) Get(k Key) (R, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.rows[k]
	return r, ok
}

// All ranges over the rows, in no order. Changes wait until it ends, so that its
// body must not wait for anyone.
func (m *Mirror[O, R]) All() iter.Seq2[Key, R] {
	return func(yield func(Key, R) bool) {
		m.mu.RLock()
		defer m.mu.RUnlock()
		for k, r := range m.rows {
			if !yield(k, r) {
				return
			}
		}
	}
}

// set keeps or forgets the row of one object. m.mu is held.
func (m *Mirror[O, R]) set(k Key, after *R) {
	r, had := m.rows[k]
	if after != nil {
		m.rows[k] = *after
	} else {
		delete(m.rows, k)
	}
	if m.o.Changed == nil || !had && after == nil {
		return
	}
	var before *R
	if had {
		before = &r
	}
	m.o.Changed(k, before, after)
}

// store is what a reflector writes to.
type store[O Object, R any] struct{ m *Mirror[O, R] }

func (s store[O, R]) pick(obj any) (Key, *R, error) {
	o, ok := obj.(O)
	if !ok {
		return Key{}, nil, fmt.Errorf("mirror of %s was given a %T", s.m.o.Resource, obj)
	}
	k := Key{o.GetNamespace(), o.GetName()}
	r, keep := s.m.o.Pick(o)
	if !keep {
		return k, nil, nil
	}
	return k, &r, nil
}

// Add implements cache.ReflectorStore.
func (s store[O, R]) Add(obj any) error {
	k, r, err := s.pick(obj)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.set(k, r)
	return nil
}

// Update implements cache.ReflectorStore.
func (s store[O, R]) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s store[O, R]) Delete(obj any) error {
	k, _, err := s.pick(obj)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.set(k, nil)
	return nil
}

// Replace implements cache.ReflectorStore.
func (s store[O, R]) Replace(list []any, _ string) error {
	now := make(map[Key]*R, len(list))
	for _, obj := range list {
		k, r, err := s.pick(obj)
		if err != nil {
			return err
		}
		now[k] = r
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for k := range s.m.rows {
		if _, still := now[k]; !still {
			s.m.set(k, nil)
		}
	}
	for k, r := range now {
		s.m.set(k, r)
	}
	s.m.synced = true
	return nil
}

// Resync implements cache.ReflectorStore.
func (s store[O, R]) Resync() error { return nil }

// Transformer implements cache.TransformingStore; see Options.Trim.
func (s store[O, R]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(O); ok {
			o.SetManagedFields(nil)
			if s.m.o.Trim != nil {
				s.m.o.Trim(o)
			}
		}
		return obj, nil
	}
}
