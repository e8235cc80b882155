package main

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// spec is an image that was asked for.
type spec struct {
	binary     string // path of the program
	entrypoint string // path of the program in the image: a slash and a name
	ref        string // REGISTRY/REPOSITORY:TAG, nothing of it implied
	output     string // path of the archive
	user       string // UID:GID, in digits
	platform   v1.Platform
	labels     map[string]string
	created    time.Time // in UTC; of the image and of every file in it and in the archive
}

// validate checks what the flag package does not.
func (s *spec) validate() error {
	if path.Dir(s.entrypoint) != "/" || path.Clean(s.entrypoint) != s.entrypoint || s.entrypoint == "/" {
		return fmt.Errorf("--entrypoint %q: want a slash and a file name, such as /app", s.entrypoint)
	}
	if _, err := s.tag(); err != nil {
		return err
	}
	if err := checkUser(s.user); err != nil {
		return err
	}
	for key, value := range s.labels {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return fmt.Errorf("--label %q: want UTF-8", key+"="+value)
		}
	}
	return nil
}

// tag is the last part of the reference.
func (s *spec) tag() (string, error) {
	tag, err := name.NewTag(s.ref, name.StrictValidation)
	if err != nil || !strings.Contains(s.ref, tag.RegistryStr()+"/") {
		return "", fmt.Errorf("--name %q: want REGISTRY/REPOSITORY:TAG, such as dormouse.dev/app:1", s.ref)
	}
	return tag.TagStr(), nil
}

// checkUser asks for numbers: the image has no /etc/passwd, and a kubelet can hold a user that it knows by name only
// against no runAsNonRoot. Without a group, a runtime would choose root's.
func checkUser(user string) error {
	uid, gid, _ := strings.Cut(user, ":")
	for _, id := range []string{uid, gid} {
		// A user ID is an int32 to Kubernetes.
		if _, err := strconv.ParseUint(id, 10, 31); err != nil {
			return fmt.Errorf("--user %q: want UID:GID, both in digits, such as 65532:65532", user)
		}
	}
	return nil
}

// parsePlatform refuses what machines does not list, variants among it.
func parsePlatform(platform string) (v1.Platform, error) {
	os, arch, _ := strings.Cut(platform, "/")
	if _, ok := machines()[arch]; os != "linux" || !ok {
		return v1.Platform{}, fmt.Errorf("--platform %q: want linux/ and one of %s", platform, strings.Join(architectures(), ", "))
	}
	return v1.Platform{OS: os, Architecture: arch}, nil
}

// parseEpoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/): seconds since 1970,
// which is also what it means not to set it.
func parseEpoch(epoch string) (time.Time, error) {
	if epoch == "" {
		epoch = "0"
	}
	// Eleven octal digits are what a tar header has for a time.
	seconds, err := strconv.ParseUint(epoch, 10, 33)
	if err != nil || !regexp.MustCompile(`^[0-9]+$`).MatchString(epoch) {
		return time.Time{}, errors.New("SOURCE_DATE_EPOCH=" + strconv.Quote(epoch) + ": want seconds since 1970, in digits, before the year 2242")
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}
