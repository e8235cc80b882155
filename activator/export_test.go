package activator

import (
	"testing"
	"time"
)

// WriteCertificate writes a certificate that is signed by itself, and returns its files.
func WriteCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	return writeCertificate(t, t.TempDir(), 1, time.Now())
}
