package resource

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// authorityKey is the key of a ConfigMap that certificates are read from, as cert-manager and Kubernetes itself write it.
	authorityKey = "ca.crt"
	// authorityEvery is how often a ConfigMap is read again; sooner where it has no certificates, and where the API server did
	// not answer.
	authorityEvery   = time.Minute
	authorityMissing = 5 * time.Second
	authorityRetry   = time.Second

	authorityTimeout = 5 * time.Second
)

// configMap names one; the zero value is none.
type configMap struct{ namespace, name string }

// authorities reads the ConfigMaps that resources take certificates from. They are few, if any, so they are asked for by
// name instead of watched: reading all ConfigMaps of a cluster is more than we should be allowed.
type authorities struct {
	client  kubernetes.Interface
	changed func() // there is something new; must not block
	news    chan struct{}

	mu    sync.Mutex // guards the following
	known map[configMap]*authorityRead
}

type authorityRead struct {
	authority
	read bool
	next time.Time // when to read it again
}

func newAuthorities(client kubernetes.Interface, changed func()) *authorities {
	return &authorities{client: client, changed: changed, news: make(chan struct{}, 1), known: make(map[configMap]*authorityRead)}
}

// authorityOf names the ConfigMap that a resource takes certificates from. None can have a name that is none.
func authorityOf(es *v1alpha1.ElasticService) configMap {
	if tls := es.Spec.Endpoint.TLS; tls != nil && isName(tls.CAConfigMap) {
		return configMap{es.Namespace, tls.CAConfigMap}
	}
	return configMap{}
}

// get returns what was found in a ConfigMap, and whether it was looked for already; if not, it will be.
func (a *authorities) get(name configMap) (found authority, known bool) {
	if name == (configMap{}) {
		return authority{}, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.known[name]; e != nil {
		return e.authority, e.read
	}
	a.known[name] = &authorityRead{}
	select {
	case a.news <- struct{}{}:
	default:
	}
	return authority{}, false
}

// keep forgets all others.
func (a *authorities) keep(names map[configMap]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.known {
		if !names[name] {
			delete(a.known, name)
		}
	}
}

// run reads what is due until ctx ends.
func (a *authorities) run(ctx context.Context) {
	for {
		next := a.readDue(ctx)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.news:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// readDue reads what is due, and returns when something will be.
func (a *authorities) readDue(ctx context.Context) (next time.Time) {
	var due []configMap
	now := time.Now()
	a.mu.Lock()
	for name, e := range a.known {
		if !e.next.After(now) {
			due = append(due, name)
		}
	}
	a.mu.Unlock()
	var reading errgroup.Group
	reading.SetLimit(workers)
	for _, name := range due {
		reading.Go(func() error {
			a.read(ctx, name)
			return nil
		})
	}
	_ = reading.Wait() // none returns an error
	next = time.Now().Add(authorityEvery)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.known {
		if e.next.Before(next) {
			next = e.next
		}
	}
	return next
}

func (a *authorities) read(ctx context.Context, name configMap) {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	object, err := a.client.CoreV1().ConfigMaps(name.namespace).Get(ctx, name.name, metav1.GetOptions{})
	found, wait := authority{}, authorityEvery
	switch {
	case apierrors.IsNotFound(err):
		found.problem = fmt.Sprintf("there is no such ConfigMap; it must be in namespace %s and have the key %s", name.namespace, authorityKey)
		wait = authorityMissing
	case apierrors.IsForbidden(err):
		found.problem = "the activator is not allowed to read the ConfigMap; its role needs get of configmaps in namespace " + name.namespace
		wait = authorityMissing
	case err != nil:
		wait = authorityRetry // what was found before goes on being true
	default:
		var ok bool
		if found.pem, ok = object.Data[authorityKey]; !ok {
			found.problem = "the ConfigMap has no key " + authorityKey
			wait = authorityMissing
		}
	}
	a.mu.Lock()
	e := a.known[name]
	if e == nil {
		a.mu.Unlock()
		return // nobody wants it any more
	}
	e.next = time.Now().Add(wait)
	passing := wait == authorityRetry
	news := !passing && (!e.read || e.authority != found)
	if news {
		e.authority, e.read = found, true
	}
	a.mu.Unlock()
	if news {
		a.changed()
	}
}
