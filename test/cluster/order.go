package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

// Do stops (as a machine that hangs), continues, kills or restarts one of the cluster's programs. It returns when that
// is done; a restarted API server, etcd or kubelet then answers again.
func (c *Cluster) Do(ctx context.Context, action keeper.Action, component string) error {
	return c.order(ctx, http.MethodPost, "/components?"+url.Values{"name": {component}, "action": {string(action)}}.Encode(), nil)
}

// FailPulls chooses how pulls of images fail from now on. They always fail: the cluster has no registry, only the
// images that were loaded.
func (c *Cluster) FailPulls(ctx context.Context, how keeper.PullFailure) error {
	return c.order(ctx, http.MethodPost, "/pulls?"+url.Values{"how": {string(how)}}.Encode(), nil)
}

// Cordon keeps new pods off the node.
func (c *Cluster) Cordon(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "cordon", keeper.NodeName)
	return err
}

// Uncordon lets new pods onto the node again.
func (c *Cluster) Uncordon(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "uncordon", keeper.NodeName)
	return err
}

// quota is what FillQuota's object is called.
const quota = "dormouse-filled"

// FillQuota leaves a namespace no room for another pod. Those it has go on.
func (c *Cluster) FillQuota(ctx context.Context, namespace string) error {
	if _, err := c.Kubectl(ctx, "create", "quota", quota, "--namespace", namespace, "--hard=pods=0"); err != nil {
		return err
	}
	// A quota binds once the controller manager has counted what is there.
	_, err := c.Kubectl(ctx, "wait", "resourcequota/"+quota, "--namespace", namespace, "--for=jsonpath={.status.hard.pods}=0", "--timeout=30s")
	return err
}

// FreeQuota undoes FillQuota.
func (c *Cluster) FreeQuota(ctx context.Context, namespace string) error {
	_, err := c.Kubectl(ctx, "delete", "quota", quota, "--namespace", namespace)
	return err
}

// order asks something of the keeper. Its refusal, a line of text, is the error.
func (c *Cluster) order(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://keeper"+path, http.NoBody)
	if err != nil {
		return err
	}
	client := c.client()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the cluster's keeper: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("read the keeper's answer: %w", err)
	case resp.StatusCode >= http.StatusBadRequest:
		return errors.New(strings.TrimSpace(string(body)))
	case into == nil:
		return nil
	}
	return json.Unmarshal(body, into)
}
