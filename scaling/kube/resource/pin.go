package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// pin is an annotation that was read.
type pin struct {
	until   time.Time // zero: none
	mistake string    // empty: none
}

// Pin keeps a resource's target awake until a time, by every activator and beyond their restarts: it is written to the
// resource. A time that is past ends an earlier pin. The target is awake for as long as any of its resources wants it to
// be. When Pin returns, that is in force here.
func (c *Controller) Pin(ctx context.Context, key scaling.Key, until time.Time) error {
	var value any // null removes it
	if until.After(time.Now()) {
		value = until.UTC().Format(time.RFC3339)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationPinnedUntil: value}},
	})
	if err != nil {
		return fmt.Errorf("pin %s: %w", key, err)
	}
	es := &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if err := c.options.Cluster.Client.Patch(ctx, es, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("pin %s: %w", key, err)
	}
	c.answered(es)
	return c.applyPin(ctx, key)
}

// applyPin tells the ScaleHandler until when the resources of one's target want it awake, unless it knows. Where two do so
// at once, the one that ends last has seen to it that what holds is what is wanted.
func (c *Controller) applyPin(ctx context.Context, key scaling.Key) error {
	for {
		target, known := c.options.Scaler.Target(key)
		if !known {
			return nil
		}
		until, due := c.pinDue(target)
		if !due {
			return nil
		}
		if err := c.options.Scaler.Pin(ctx, key, until); errors.Is(err, scaling.ErrUnknownService) {
			return nil // it has just been removed
		} else if err != nil {
			return fmt.Errorf("pin %s: %w", key, err)
		}
		if now, _ := c.options.Scaler.Target(key); now != target {
			continue // who can say which of them was told?
		}
		c.mu.Lock()
		c.pinned[target] = until
		c.mu.Unlock()
	}
}

// pinDue returns until when a target is wanted awake, and whether the ScaleHandler is to be told.
func (c *Controller) pinDue(target scaling.Target) (until time.Time, due bool) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.sharing[target] {
		if !r.gone && r.pin.until.After(until) {
			until = r.pin.until
		}
	}
	told := c.pinned[target]
	return until, !until.Equal(told) && (until.After(now) || told.After(now))
}

// shareLocked notes who has each target, as the ScaleHandler does by now. It has forgotten the pin of a target that is
// nobody's.
func (c *Controller) shareLocked(sharing map[scaling.Target][]*record) {
	c.sharing = sharing
	for target := range c.pinned {
		if sharing[target] == nil {
			delete(c.pinned, target)
		}
	}
}

func pinOf(es *v1alpha1.ElasticService) pin {
	annotation := es.Annotations[v1alpha1.AnnotationPinnedUntil]
	if annotation == "" {
		return pin{}
	}
	until, err := time.Parse(time.RFC3339, annotation)
	if err != nil {
		return pin{mistake: fmt.Sprintf("annotation %s is ignored: %q is not a time such as 2030-01-31T18:00:00Z",
			v1alpha1.AnnotationPinnedUntil, annotation)}
	}
	return pin{until: until}
}
