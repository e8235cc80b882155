package resource

import (
	"cmp"
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
	// authorityEvery is how often a ConfigMap is read again. Where it has no certificates, and where the API server did not
	// answer, that is how long the gaps between reading it grow, from these on.
	authorityEvery   = time.Minute
	authorityMissing = 5 * time.Second
	authorityRetry   = time.Second

	authorityTimeout = 5 * time.Second
	// authorityPatience is how long a ConfigMap that was never read is waited for. Beyond that it is a mistake of who names
	// it: nobody else's resource waits for it.
	authorityPatience = 5 * time.Second
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
	read    bool
	asked   time.Time     // when it was wanted first
	trouble string        // why it cannot be read, as it was found first; empty: nothing is known against it
	next    time.Time     // when to read it again
	gap     time.Duration // before that, where there are no certificates or it cannot be read; zero: neither
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

// get returns what was found in a ConfigMap, and whether it was looked for already; if not, it will be. One that cannot be
// read for long is known not to be.
func (a *authorities) get(name configMap) (found authority, known bool) {
	if name == (configMap{}) {
		return authority{}, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.known[name]; e != nil {
		if !e.read && e.trouble != "" && time.Since(e.asked) >= authorityPatience {
			return authority{problem: "the ConfigMap cannot be read: " + e.trouble}, true
		}
		return e.authority, e.read
	}
	a.known[name] = &authorityRead{asked: time.Now()}
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
	found, first := authority{}, time.Duration(0)
	switch {
	case apierrors.IsNotFound(err):
		found.problem = fmt.Sprintf("there is no such ConfigMap; it must be in namespace %s and have the key %s", name.namespace, authorityKey)
		first = authorityMissing
	case apierrors.IsForbidden(err):
		found.problem = "the activator is not allowed to read the ConfigMap; its role needs get of configmaps in namespace " + name.namespace
		first = authorityMissing
	case err != nil:
		first = authorityRetry // what was found before goes on being true
	default:
		var ok bool
		if found.pem, ok = object.Data[authorityKey]; !ok {
			found.problem = "the ConfigMap has no key " + authorityKey
			first = authorityMissing
		}
	}
	passing := err != nil && found == (authority{})
	a.mu.Lock()
	e := a.known[name]
	if e == nil {
		a.mu.Unlock()
		return // nobody wants it any more
	}
	e.gap = min(max(2*e.gap, first), authorityEvery)
	if first == 0 {
		e.gap = 0
	}
	e.next = time.Now().Add(cmp.Or(e.gap, authorityEvery))
	news := !e.read || e.authority != found
	switch {
	case passing:
		news = !e.read // its patience may have ended
		e.trouble = cmp.Or(e.trouble, err.Error())
	case news:
		e.authority, e.read, e.trouble = found, true, ""
	}
	a.mu.Unlock()
	if news {
		a.changed()
	}
}
