package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func TestACertificateSaysWhoItsOwnerIs(t *testing.T) {
	a := authority(t)
	who := Identity{User: "admin", Groups: []string{"system:masters", "others"}} // in a set, which has no order
	pair, err := a.Issue("admin", who)
	if err != nil {
		t.Fatal(err)
	}
	cert := load(t, pair).Leaf
	if cert.Subject.CommonName != who.User || !slices.Equal(slices.Sorted(slices.Values(cert.Subject.Organization)), slices.Sorted(slices.Values(who.Groups))) {
		t.Errorf("it is %s of %v, want %s of %v", cert.Subject.CommonName, cert.Subject.Organization, who.User, who.Groups)
	}
	if err := verify(a, cert, x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Errorf("as a client's: %v", err)
	}
	if err := verify(a, cert, x509.ExtKeyUsageServerAuth, ""); err == nil {
		t.Error("a certificate without names passes for a server's")
	}
	if cert.IsCA {
		t.Error("it may sign others")
	}
	if left := time.Until(cert.NotAfter); left < 300*24*time.Hour {
		t.Errorf("it is valid for %v, want about a year", left)
	}
}

func TestAServersCertificateHoldsForItsNamesOnly(t *testing.T) {
	a := authority(t)
	pair, err := a.Issue("server", Identity{User: "server", Names: []string{"kubernetes.default.svc", "10.96.0.1", "::1"}})
	if err != nil {
		t.Fatal(err)
	}
	cert := load(t, pair).Leaf
	for _, name := range []string{"kubernetes.default.svc", "10.96.0.1", "::1"} {
		if err := verify(a, cert, x509.ExtKeyUsageServerAuth, name); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	for _, name := range []string{"kubernetes", "10.96.0.2", "localhost"} {
		if err := verify(a, cert, x509.ExtKeyUsageServerAuth, name); err == nil {
			t.Errorf("it passes for %s", name)
		}
	}
}

func TestAnotherAuthoritysCertificateIsNotTaken(t *testing.T) {
	a, other := authority(t), authority(t)
	pair, err := other.Issue("admin", Identity{User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(a, load(t, pair).Leaf, x509.ExtKeyUsageClientAuth, ""); err == nil {
		t.Error("it is taken")
	}
}

func TestClientAndServerOfOneAuthorityTrustEachOther(t *testing.T) {
	a := authority(t)
	server, err := a.Issue("server", Identity{User: "server", Names: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := a.Issue("client", Identity{User: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	accepted := tls.Server(far, &tls.Config{
		Certificates: []tls.Certificate{load(t, server)}, ClientCAs: roots(a), ClientAuth: tls.RequireAndVerifyClientCert,
	})
	dialed := tls.Client(near, &tls.Config{
		Certificates: []tls.Certificate{load(t, client)}, RootCAs: roots(a), ServerName: "localhost",
	})
	failed := make(chan error, 1)
	go func() { failed <- errors.Join(dialed.HandshakeContext(t.Context()), dialed.Close()) }()
	if err := accepted.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if user := accepted.ConnectionState().PeerCertificates[0].Subject.CommonName; user != "somebody" {
		t.Errorf("the server takes the client for %s", user)
	}
	_, _ = io.Copy(io.Discard, accepted)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestAKubeconfigHasEverythingAClientNeeds(t *testing.T) {
	a := authority(t)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := a.Kubeconfig(path, "https://127.0.0.1:6443", Identity{User: "somebody", Groups: []string{"some"}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// As kubectl reads it: YAML.
	var config struct {
		CurrentContext string `yaml:"current-context"`
		Contexts       []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
		Clusters []struct {
			Name    string
			Cluster struct {
				Server string
				CA     string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Cert string `yaml:"client-certificate-data"`
				Key  string `yaml:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Contexts) != 1 || len(config.Clusters) != 1 || len(config.Users) != 1 {
		t.Fatalf("%d contexts, %d clusters and %d users, want one of each", len(config.Contexts), len(config.Clusters), len(config.Users))
	}
	chosen, cluster, user := config.Contexts[0], config.Clusters[0], config.Users[0]
	if chosen.Name != config.CurrentContext || chosen.Context.Cluster != cluster.Name || chosen.Context.User != user.Name {
		t.Errorf("its parts do not name each other: %s", text)
	}
	if cluster.Cluster.Server != "https://127.0.0.1:6443" || string(decode(t, cluster.Cluster.CA)) != string(a.pem) {
		t.Errorf("it is for another server: %s", text)
	}
	pair, err := tls.X509KeyPair(decode(t, user.User.Cert), decode(t, user.User.Key))
	if err != nil {
		t.Fatal(err)
	}
	if pair.Leaf.Subject.CommonName != "somebody" {
		t.Errorf("it makes its reader %s", pair.Leaf.Subject.CommonName)
	}
	if err := verify(a, pair.Leaf, x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Error(err)
	}
}

func TestSigningKeysBelongTogether(t *testing.T) {
	private, public, err := authority(t).SigningKey("service-account")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(block(t, private))
	if err != nil {
		t.Fatal(err)
	}
	half, err := x509.ParsePKIXPublicKey(block(t, public))
	if err != nil {
		t.Fatal(err)
	}
	if other, ok := half.(*ecdsa.PublicKey); !ok || !key.PublicKey.Equal(other) {
		t.Error("what one signs the other does not check")
	}
}

func TestOnlyTheOwnerReadsWhatIsMade(t *testing.T) {
	a := authority(t)
	if _, err := a.Issue("server", Identity{User: "server", Names: []string{"localhost"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.SigningKey("service-account"); err != nil {
		t.Fatal(err)
	}
	if err := a.Kubeconfig(filepath.Join(a.dir, "kubeconfig"), "https://127.0.0.1", Identity{User: "u"}); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(a.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files++
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || files != 8 { // the folder, four of pairs, two keys, one kubeconfig
		t.Errorf("%d files, %v; want 8", files, err)
	}
}

func TestAFolderThatCannotBeWrittenToIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAuthority(filepath.Join(file, "pki")); err == nil {
		t.Error("no error")
	}
}

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func load(t *testing.T, pair Pair) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func roots(a *Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.pem)
	return pool
}

func verify(a *Authority, cert *x509.Certificate, usage x509.ExtKeyUsage, name string) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots(a), DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func block(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(text)
	if b == nil {
		t.Fatalf("%s holds no PEM", path)
	}
	return b.Bytes
}

func decode(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
