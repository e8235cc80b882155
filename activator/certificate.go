package activator

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// recheck is how often the files of a certificate are looked at, at most.
const recheck = time.Second

// certificate is a certificate in two files, which may be replaced at any time.
type certificate struct {
	certFile, keyFile string
	logger            *zap.Logger

	mu      sync.Mutex // guards the following
	current *tls.Certificate
	version version // of the files that were tried last
	checked time.Time
}

// version tells whether files have changed.
type version struct{ cert, key time.Time }

// load reads the files for the first time.
func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loadLocked()
}

// get returns the certificate, that of new files if they have changed. Where those cannot be used, the one before stays.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheck {
		return c.current, nil
	}
	c.checked = time.Now()
	now, err := c.versionLocked()
	if err == nil && now == c.version {
		return c.current, nil
	}
	if err == nil {
		err = c.loadLocked()
	}
	if err != nil {
		c.logger.Error("certificate not replaced", zap.Error(err))
	} else {
		c.logger.Info("certificate replaced", zap.String("file", c.certFile))
	}
	return c.current, nil
}

func (c *certificate) loadLocked() error {
	version, err := c.versionLocked()
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c.version, c.checked = version, time.Now()
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c.current = &loaded
	return nil
}

func (c *certificate) versionLocked() (v version, err error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return v, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return v, err
	}
	return version{cert.ModTime(), key.ModTime()}, nil
}
