package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1"
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
	if !regexp.MustCompile(`^/[A-Za-z0-9_][A-Za-z0-9_.-]{0,98}$`).MatchString(s.entrypoint) {
		return fmt.Errorf("--entrypoint %q: want a slash and a plain file name, such as /app", s.entrypoint)
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

// tag is the last part of the reference. The grammar is the one that Docker and containerd have, nothing is implied.
func (s *spec) tag() (string, error) {
	named, err := reference.ParseNamed(s.ref)
	tagged, ok := named.(reference.NamedTagged)
	if _, digested := named.(reference.Digested); err != nil || !ok || digested {
		return "", fmt.Errorf("--name %q: want REGISTRY/REPOSITORY:TAG, such as dormouse.dev/app:1", s.ref)
	}
	return tagged.Tag(), nil
}

// checkUser asks for numbers: there is no /etc/passwd to find a name in, and for a name a kubelet refuses
// runAsNonRoot. Without a group, a runtime would choose root's.
func checkUser(user string) error {
	uid, gid, _ := strings.Cut(user, ":")
	for _, id := range []string{uid, gid} {
		// Kubernetes has 31 bits for each.
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

// parseEpoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), seconds since 1970.
// The empty string is 0.
func parseEpoch(epoch string) (time.Time, error) {
	if epoch == "" {
		epoch = "0"
	}
	// 33 bits are what a tar header has for a time.
	seconds, err := strconv.ParseUint(epoch, 10, 33)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970, in digits, before the year 2242", epoch)
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}
