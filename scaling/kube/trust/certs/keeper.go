package certs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	impatient = time.Second // between looks at the Secret, before a certificate was loaded
	patient   = time.Minute // and after
	maxLook   = 10 * time.Second
)

// Keeper shares a certificate and its authority with the other activators, in a Secret that exists already. The leader
// fills it, and replaces in time what ends; everybody reads it.
//
// It is read from the API server, not from a volume: the kubelet brings a volume up to date a minute or more later, and
// so long no activator would know another after the first installation.
type Keeper struct {
	Secrets coreclient.SecretInterface
	Secret  string   // its name
	Names   []string // the DNS names of servers
	Source  *Source
	Logger  *zap.Logger
	Now     func() time.Time // nil: time.Now

	version string // of the Secret that was loaded; Run's own
}

// Run loads the Secret, looks at it until ctx ends, and then returns nil. Where leads says so, it also writes it. What
// goes wrong is logged when it changes, and tried again.
func (k *Keeper) Run(ctx context.Context, leads func() bool) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := k.look(ctx, leads())
		switch {
		case err == nil:
			last = ""
		case err.Error() != last && ctx.Err() == nil:
			k.Logger.Error("certificate of the control port not kept", zap.String("secret", k.Secret), zap.Error(err))
			last = err.Error()
		}
		if k.Source.Ready() && err == nil {
			tick.Reset(patient)
		} else {
			tick.Reset(impatient)
		}
	}
}

// look reads the Secret once, writes it if it should be another and write says so, and loads it.
func (k *Keeper) look(ctx context.Context, write bool) error {
	ctx, cancel := context.WithTimeout(ctx, maxLook)
	defer cancel()
	secret, err := k.Secrets.Get(ctx, k.Secret, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the Secret: %w", err)
	}
	current, unreadable := parse(secret.Data)
	if write {
		next, err := current.next(k.now(), k.Names)
		if err != nil {
			return err
		}
		if next != current {
			if secret, err = k.write(ctx, secret, next); err != nil {
				return err
			}
			if unreadable != nil {
				k.Logger.Warn("certificate of the control port was unreadable, and is made anew", zap.Error(unreadable))
			}
			current, unreadable = next, nil
		}
	}
	switch {
	case unreadable != nil:
		return fmt.Errorf("read the Secret: %w", unreadable)
	case current == nil || secret.ResourceVersion == k.version:
		return nil
	}
	if err := k.Source.Load(secret.Data[keyCertificate], secret.Data[keyPrivate], secret.Data[keyAuthorities]); err != nil {
		return err
	}
	k.version = secret.ResourceVersion
	k.Logger.Info("certificate of the control port loaded", zap.Time("until", current.leaf.NotAfter), zap.Int("authorities", len(current.authorities)))
	return nil
}

// write replaces what the Secret has. One that somebody else has changed since is left as it is.
func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, next *bundle) (*corev1.Secret, error) {
	data, err := next.data()
	if err != nil {
		return nil, err
	}
	changed := secret.DeepCopy()
	if changed.Data == nil {
		changed.Data = make(map[string][]byte, len(data))
	}
	maps.Copy(changed.Data, data)
	written, err := k.Secrets.Update(ctx, changed, metav1.UpdateOptions{FieldManager: "dormouse-activator"})
	if err != nil {
		return nil, fmt.Errorf("write the Secret: %w", err)
	}
	if written.ResourceVersion == secret.ResourceVersion {
		return nil, errors.New("write the Secret: it did not change")
	}
	return written, nil
}

func (k *Keeper) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return time.Now()
}
