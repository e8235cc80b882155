package certs

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

const host = "dormouse-control.dormouse.svc"

// Three activators with a real API server and real connections, through the years.
func TestConnectionsOutliveTheirCertificates(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	secrets := client.CoreV1().Secrets("default")
	var now atomic.Int64 // in nanoseconds
	now.Store(time.Now().UnixNano())
	var leader atomic.Int32 // of three; from 3 on there is none
	leader.Store(3)
	var all [3]*Source
	var keepers [3]*Keeper
	for i := range all {
		all[i] = NewSource(host)
		keepers[i] = &Keeper{
			Secrets: secrets, Secret: "dormouse-control", Names: []string{host}, Source: all[i], Logger: zaptest.NewLogger(t),
			Now: func() time.Time { return time.Unix(0, now.Load()) },
		}
	}
	look := func(i int) error { return keepers[i].look(t.Context(), int(leader.Load()) == i) }

	if err := look(0); err == nil {
		t.Error("without a Secret there is no error")
	}
	if _, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "dormouse-control"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	address := serve(t, all[1])
	if err := look(1); err != nil || all[1].Ready() {
		t.Errorf("who does not lead has made a certificate, or complains: %v", err)
	}
	if _, err := connect(t, all[0], address); err == nil {
		t.Error("without a certificate somebody could connect")
	}

	// As they run: the leader comes, and all of them find what it wrote.
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i, k := range keepers {
		running.Go(func() { _ = k.Run(ctx, func() bool { return int(leader.Load()) == i }) })
	}
	leader.Store(2)
	eventually(t, "all have a certificate", func() bool { return all[0].Ready() && all[1].Ready() && all[2].Ready() })
	stop()
	running.Wait()
	first, err := connect(t, all[0], address)
	if err != nil {
		t.Fatal(err)
	}
	before := first.ConnectionState().PeerCertificates[0]

	// The years pass; leaders come and go, and one reads late. The old connection goes on, and new ones are made.
	for year := range 8 {
		for range 12 {
			now.Add(int64(31 * day))
			leader.Store(int32(year % 3))
			for range 3 { // the authority, ten minutes, the certificate
				for i := range all {
					if err := look((year + i) % 3); err != nil {
						t.Fatal(err)
					}
				}
				now.Add(int64(settle + time.Minute))
			}
			c, err := dialAt(t, all[0], address, time.Unix(0, now.Load()))
			if err != nil {
				t.Fatalf("in the year %d: %v", year, err)
			}
			echo(t, c)
		}
		echo(t, first)
	}
	late, err := dialAt(t, all[2], address, time.Unix(0, now.Load()))
	if err != nil {
		t.Fatal(err)
	}
	if after := late.ConnectionState().PeerCertificates[0]; after.Equal(before) || after.CheckSignatureFrom(before) == nil {
		t.Error("it is still the same certificate")
	}

	// What somebody has broken, the leader mends; what it cannot write, it says.
	secret, err := secrets.Get(t.Context(), "dormouse-control", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data[keyPrivate] = []byte("rust")
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	leader.Store(0)
	if err := look(1); err == nil {
		t.Error("who does not lead says nothing of a broken Secret")
	}
	if err := errors.Join(look(0), look(1)); err != nil {
		t.Errorf("it is not mended: %v", err)
	}
	echo(t, first)
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(names ...string) *bundle {
		b, err := (*bundle)(nil).next(time.Now(), names)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.data()
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range data {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	source := NewSource(host)
	files := &Files{
		Certificate: filepath.Join(dir, keyCertificate), Key: filepath.Join(dir, keyPrivate), Authorities: filepath.Join(dir, keyAuthorities),
		Source: source, Logger: zaptest.NewLogger(t),
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = files.Run(ctx) })
	defer running.Wait()
	defer stop()
	address := serve(t, source)
	served := func(b *bundle) func() bool {
		return func() bool {
			c, err := connect(t, source, address)
			return err == nil && c.ConnectionState().PeerCertificates[0].Equal(b.leaf)
		}
	}
	first := write(host) // it is not there when the activator starts
	eventually(t, "it is served", served(first))
	if err := os.WriteFile(files.Key, []byte("rust"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := write(host, "b")
	eventually(t, "its successor is served", served(second))
}

// serve echoes lines, over TLS, until the test ends, and returns its address.
func serve(t *testing.T, source *Source) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	secure := tls.NewListener(l, source.Server())
	go func() {
		for {
			c, err := secure.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintln(c, lines.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

func connect(t *testing.T, source *Source, address string) (*tls.Conn, error) {
	t.Helper()
	return dialAt(t, source, address, time.Now())
}

// dialAt connects at a time, by the clock of who connects.
func dialAt(t *testing.T, source *Source, address string, at time.Time) (*tls.Conn, error) {
	t.Helper()
	config := source.Client()
	config.Time = func() time.Time { return at }
	c, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	secure, ok := c.(*tls.Conn)
	if !ok {
		t.Fatalf("%T is no connection of TLS", c)
	}
	return secure, nil
}

func echo(t *testing.T, c net.Conn) {
	t.Helper()
	fmt.Fprintln(c, "still there?")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "still there?\n" {
		t.Fatalf("the connection is broken: %q, %v", line, err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not within 20 s", what)
	}
}
