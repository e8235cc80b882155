package activator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// writeCertificate writes a new certificate with this serial number, and returns its files.
func writeCertificate(t *testing.T, dir string, serial int64, modified time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), modified)
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), modified)
	return certFile, keyFile
}

func write(t *testing.T, file string, content []byte, modified time.Time) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, modified, modified); err != nil {
		t.Fatal(err)
	}
}

func serial(t *testing.T, c *certificate) int64 {
	t.Helper()
	current, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	return current.Leaf.SerialNumber.Int64()
}

func TestACertificateIsReadAgainWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, now := t.TempDir(), time.Now()
		observed, logs := observer.New(zap.InfoLevel)
		certFile, keyFile := writeCertificate(t, dir, 1, now)
		c := &certificate{certFile: certFile, keyFile: keyFile, logger: zap.New(observed)}
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		if got := serial(t, c); got != 1 {
			t.Errorf("serial %d", got)
		}

		writeCertificate(t, dir, 2, now.Add(time.Minute))
		if got := serial(t, c); got != 1 {
			t.Errorf("serial %d: the files are looked at too often", got)
		}
		<-time.After(recheck)
		if got := serial(t, c); got != 2 || logs.FilterMessage("certificate replaced").Len() != 1 {
			t.Errorf("serial %d, %v", got, logs.All())
		}

		write(t, certFile, []byte("nonsense"), now.Add(2*time.Minute))
		for range 3 {
			<-time.After(recheck)
			if got := serial(t, c); got != 2 {
				t.Errorf("serial %d", got)
			}
		}
		if n := logs.FilterMessage("certificate not replaced").Len(); n != 1 {
			t.Errorf("%d error lines for one bad certificate", n)
		}

		writeCertificate(t, dir, 3, now.Add(3*time.Minute))
		<-time.After(recheck)
		if got := serial(t, c); got != 3 {
			t.Errorf("serial %d", got)
		}
	})
}

func TestABadCertificateIsAnErrorAtTheStart(t *testing.T) {
	c := &certificate{certFile: "missing", keyFile: "missing", logger: zap.NewNop()}
	if err := c.load(); err == nil {
		t.Error("no error")
	}
}
