package components

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// entry is a file that is made once and kept. The methods do not lock; see store.obtain.
type entry struct {
	name   string      // In messages and names of files: "kubelet", "coredns-image".
	dir    string      // Of its own, absolute; there only as long as the entry is.
	file   string      // In dir.
	access fs.FileMode // Bits that the file must have.
}

// The states of an entry are absent, whole, and a word about what is wrong with it.
const (
	whole  = "whole"
	absent = "absent"
)

// mark is the name of the file that says how many bytes the entry's file has. It is written last.
const mark = "whole"

// look returns the path of the entry's file and the state of the entry. It notes that a whole entry is in use.
func (e entry) look() (path, state string) {
	path = filepath.Join(e.dir, e.file)
	folder, err := os.Stat(e.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return path, absent
	}
	if err != nil {
		return path, err.Error()
	}
	text, err := os.ReadFile(filepath.Join(e.dir, mark))
	if err != nil {
		return path, "it was never finished"
	}
	want, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || want <= 0 {
		return path, "its size was not recorded"
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, e.file + " is missing"
	case err != nil:
		return path, err.Error()
	case !info.Mode().IsRegular():
		return path, e.file + " is not a file"
	case info.Size() != want:
		return path, fmt.Sprintf("%s has %d bytes and should have %d", e.file, info.Size(), want)
	case info.Mode()&e.access != e.access:
		return path, fmt.Sprintf("%s has mode %04o and should have %04o", e.file, info.Mode().Perm(), e.access)
	}
	if now := time.Now(); now.Sub(folder.ModTime()) > touchEvery {
		// Best effort: an entry in a cache that only others may write is as good, and theirs to keep.
		_ = os.Chtimes(e.dir, now, now)
	}
	return path, whole
}

// touchEvery is how exactly the use of an entry is known.
const touchEvery = time.Hour

// publish moves the folder aside, which holds the entry's file, into the entry's place, so that after a crash at any
// moment the entry is whole or does not count.
func (e entry) publish(aside string) error {
	path := filepath.Join(aside, e.file)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("%s was built as an empty file", e.file)
	}
	if err := os.Chmod(path, e.access); err != nil {
		return err
	}
	if err := flush(path); err != nil {
		return err
	}
	record := filepath.Join(aside, mark)
	if err := os.WriteFile(record, fmt.Appendln(nil, info.Size()), 0o644); err != nil {
		return err
	}
	for _, path := range []string{record, aside} {
		if err := flush(path); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return err
	}
	if err := os.Rename(aside, e.dir); err != nil {
		return err
	}
	return flush(filepath.Dir(e.dir))
}

// flush returns when the file or folder is on the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
