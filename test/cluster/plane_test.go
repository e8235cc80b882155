//go:build linux

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster/pki"
)

// Three at once, and what each of them is asked is asked while the others work.
func TestThreeControlPlanesSideBySide(t *testing.T) {
	t.Parallel()
	opts := Options{ControlPlaneOnly: true, Program: os.Getenv(built)}
	var planes [3]*Cluster
	t.Cleanup(func() { // when they have ended
		for _, c := range planes {
			if c != nil && exists(filepath.Dir(c.Dir())) {
				t.Errorf("%s is still there", filepath.Dir(c.Dir()))
			}
			if c != nil {
				nothingRuns(t, c.Dir())
			}
		}
	})
	var all sync.WaitGroup
	for i := range planes[1:] {
		all.Go(func() {
			c, end, err := Temporary(t.Context(), opts)
			if err != nil {
				t.Errorf("control plane %d: %v", i+1, err)
				return
			}
			planes[i+1] = c
			t.Cleanup(func() {
				if err := end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	planes[0] = Start(t, opts)
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Run("know nothing of each other", func(t *testing.T) { strangers(t, planes[:]) })
	t.Run("run controllers", func(t *testing.T) { t.Parallel(); controllers(t, planes[0]) })
	t.Run("know who asks", func(t *testing.T) { t.Parallel(); identities(t, planes[0]) })
	t.Run("keep other users out", func(t *testing.T) { t.Parallel(); privacy(t, planes[0]) })
	t.Run("have faults on order", func(t *testing.T) { t.Parallel(); storeFaults(t, planes[1]) })
	t.Run("mend themselves", func(t *testing.T) { t.Parallel(); mending(t, planes[2]) })
}

func strangers(t *testing.T, planes []*Cluster) {
	t.Helper()
	servers := map[string]bool{}
	for i, c := range planes {
		must(t, c, "create", "namespace", fmt.Sprintf("of-%d", i))
		servers[c.Config().Server()] = true
	}
	if len(servers) != len(planes) {
		t.Errorf("%d control planes answer at %v", len(planes), servers)
	}
	for i, c := range planes {
		if got := must(t, c, "get", "namespaces", "-o", "name"); strings.Count(got, "namespace/of-") != 1 {
			t.Errorf("control plane %d has the namespaces:\n%s", i, got)
		}
	}
	// One's administrator is nobody to another.
	mine, others := clientOf(t, planes[0]), clientOf(t, planes[1])
	if _, _, err := mine.get(t.Context(), others.server+"/api", ""); !unknownAuthority(err) {
		t.Errorf("a client of one, at another: %v, want that it does not trust the server", err)
	}
	trusting := others
	trusting.certs = mine.certs
	if status, _, err := trusting.get(t.Context(), others.server+"/api", ""); err != nil || status != http.StatusUnauthorized {
		t.Errorf("one's administrator at another: status %d, %v; want %d", status, err, http.StatusUnauthorized)
	}
}

func controllers(t *testing.T, c *Cluster) {
	t.Helper()
	must(t, c, "create", "deployment", "web", "--image=web:1", "--replicas=2")
	eventually(t, "there are pods of a ReplicaSet", func() bool {
		sets := must(t, c, "get", "replicasets", "-l", "app=web", "-o", "name")
		pods := must(t, c, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.phase}")
		return strings.Count(sets, "\n") == 1 && strings.Count(pods, "Pending") == 2
	})
	if got := strings.TrimSpace(must(t, c, "version", "-o", "json")); strings.Count(got, `"gitVersion": "`+c.Config().Version+`"`) != 2 {
		t.Errorf("kubectl and server are not both %s:\n%s", c.Config().Version, got)
	}
}

func identities(t *testing.T, c *Cluster) {
	t.Helper()
	admin := clientOf(t, c)
	pods := admin.server + "/api/v1/namespaces/default/pods"
	if status, body, err := admin.get(t.Context(), pods, ""); err != nil || status != http.StatusOK {
		t.Errorf("the administrator: status %d, %v: %s", status, err, body)
	}
	other, err := pki.NewAuthority(filepath.Join(newDir(t), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := other.Issue("admin", pki.Identity{User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(forged.Cert, forged.Key)
	if err != nil {
		t.Fatal(err)
	}
	anonymous, forger := admin, admin
	anonymous.certs, forger.certs = nil, []tls.Certificate{pair}
	token := strings.TrimSpace(must(t, c, "create", "token", "default"))
	for name, tc := range map[string]struct {
		client client
		token  string
		status int
		body   string
	}{
		"nobody":                        {anonymous, "", http.StatusUnauthorized, "Unauthorized"},
		"who has no token but words":    {anonymous, "open sesame", http.StatusUnauthorized, "Unauthorized"},
		"who has a certificate forged":  {forger, "", http.StatusUnauthorized, "Unauthorized"},
		"who may do nothing":            {anonymous, token, http.StatusForbidden, `User \"system:serviceaccount:default:default\" cannot list resource \"pods\"`},
		"who has a token and a bad key": {forger, token, http.StatusForbidden, "system:serviceaccount:default:default"},
	} {
		if status, body, err := tc.client.get(t.Context(), pods, tc.token); err != nil || status != tc.status || !strings.Contains(body, tc.body) {
			t.Errorf("%s: status %d, %v: %s; want %d and %q", name, status, err, body, tc.status, tc.body)
		}
	}
	must(t, c, "create", "rolebinding", "look", "--clusterrole=view", "--serviceaccount=default:default")
	eventually(t, "who was given the right may look", func() bool {
		status, _, err := anonymous.get(t.Context(), pods, token)
		return err == nil && status == http.StatusOK
	})
	if status, _, err := anonymous.get(t.Context(), admin.server+"/api/v1/nodes", token); err != nil || status != http.StatusForbidden {
		t.Errorf("the right to look at pods, used on nodes: status %d, %v; want %d", status, err, http.StatusForbidden)
	}
}

// privacy: what a cluster's programs listen on and write is for who started it.
func privacy(t *testing.T, c *Cluster) {
	t.Helper()
	if info, err := os.Stat(c.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v; want mode 0700", info.Mode(), err)
	}
	if os.Geteuid() == 0 {
		for _, file := range []string{"etcd.sock", "keeper.sock", "kubeconfig", "pki/ca.key"} {
			cmd := exec.CommandContext(t.Context(), "test", "-e", filepath.Join(c.Dir(), file))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			if err := cmd.Run(); err == nil {
				t.Errorf("another user sees %s", file)
			}
		}
	}
	// What they listen on besides: the API server's port, for who comes from this machine.
	want := fmt.Sprintf("0100007F:%04X", c.Config().APIPort) // 127.0.0.1, as the kernel writes it
	found := 0
	for pid, name := range processes(t, c.Dir()) {
		for _, at := range listening(t, pid) {
			found++
			if at != want {
				t.Errorf("%s listens on %s, want nothing but %s", name, at, want)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d ports are listened on, want the API server's", found)
	}
}

// listening returns where a process listens for TCP, as /proc/net/tcp has it.
func listening(t *testing.T, pid int) (at []string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil {
			own[to] = true
		}
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			const local, state, inode, listen = 1, 3, 9, "0A"
			if f := strings.Fields(line); len(f) > inode && f[state] == listen && own["socket:["+f[inode]+"]"] {
				at = append(at, f[local])
			}
		}
	}
	return at
}

// client asks one API server, as whoever its certificates make it.
type client struct {
	server string
	roots  *x509.CertPool
	certs  []tls.Certificate
}

// clientOf returns the administrator's client.
func clientOf(t *testing.T, c *Cluster) client {
	t.Helper()
	text, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(config.Users[0].User.Cert, config.Users[0].User.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	return client{server: config.Clusters[0].Cluster.Server, roots: roots, certs: []tls.Certificate{pair}}
}

// get asks for a URL on a connection of its own, with a token or "".
func (c client) get(ctx context.Context, url, token string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	h := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: c.roots, Certificates: c.certs},
	}}
	resp, err := h.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	_, err = io.Copy(&text, resp.Body)
	return resp.StatusCode, text.String(), err
}

func unknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// must runs kubectl, which is to succeed, and returns what it printed.
func must(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
