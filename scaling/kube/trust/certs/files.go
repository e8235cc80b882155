package certs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"
)

// reread is how often files are looked at: a volume of a Secret is replaced without a word.
const reread = 2 * time.Second

// Files are a certificate, its key and the authorities in PEM files, which somebody else replaces.
type Files struct {
	Certificate, Key, Authorities string
	Source                        *Source
	Logger                        *zap.Logger
}

// Run loads the files, and again when they have changed, until ctx ends, and returns nil. What cannot be used is logged
// once, and what was loaded before stays.
func (f *Files) Run(ctx context.Context) error {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	var loaded [3][]byte
	var last string
	for {
		if files, err := f.read(); err != nil {
			last = f.complain(err, last)
		} else if !same(files, loaded) {
			if err := f.Source.Load(files[0], files[1], files[2]); err != nil {
				last = f.complain(err, last)
			} else {
				f.Logger.Info("certificate loaded", zap.String("file", f.Certificate))
				loaded, last = files, ""
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// complain logs an error that is not the last one again, and returns what it was.
func (f *Files) complain(err error, last string) string {
	if err.Error() != last {
		f.Logger.Error("certificate not loaded", zap.Error(err))
	}
	return err.Error()
}

func (f *Files) read() (files [3][]byte, err error) {
	var problems []error
	for i, name := range []string{f.Certificate, f.Key, f.Authorities} {
		files[i], err = os.ReadFile(name)
		problems = append(problems, err)
	}
	return files, errors.Join(problems...)
}

func same(a, b [3][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
