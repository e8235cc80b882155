// Command image makes a container image from one static binary, without Docker and without a registry. The binary is
// all that is in it. The same arguments and the same binary give the same bytes, whenever and wherever it runs.
//
//	go run -C hack/image . --binary /abs/bin/app --entrypoint /app --name dormouse.dev/app:1 --output /abs/app.tar
//
// Relative paths are relative to where the program runs, which with go run -C is this folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

// run makes the image that args describe and prints its reference, its manifest's digest, the archive's size in bytes
// and the archive's path, in one line. The usage goes to stderr if it is asked for, errors are returned.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	s, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	program, err := readBinary(s.binary, s.platform)
	if err != nil {
		return err
	}
	img, err := newImage(s, program)
	if err != nil {
		return fmt.Errorf("make %s: %w", s.ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("make %s: %w", s.ref, err)
	}
	size, err := writeArchive(ctx, s, img)
	if err != nil {
		return fmt.Errorf("write %s: %w", s.output, err)
	}
	_, err = fmt.Fprintln(stdout, s.ref, digest, size, s.output)
	return err
}

// parse reads the command line and SOURCE_DATE_EPOCH, and checks all that can be checked without opening a file.
func parse(args []string, getenv func(string) string, stderr io.Writer) (spec, error) {
	s := spec{labels: map[string]string{}}
	var platform string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Errors are printed once, by main.
	flags.StringVar(&s.binary, "binary", "", "the program, a static executable, as a `path`")
	flags.StringVar(&s.entrypoint, "entrypoint", "", "where the program is in the image, as /`NAME`")
	flags.StringVar(&s.ref, "name", "", "the image's `reference`, REGISTRY/REPOSITORY:TAG")
	flags.StringVar(&s.output, "output", "", "the archive to write, as a `path`")
	flags.StringVar(&s.user, "user", "65532:65532", "`UID:GID` that the program runs as")
	flags.StringVar(&platform, "platform", "linux/"+runtime.GOARCH, "`OS/ARCH` that the program was built for")
	flags.Func("label", "a `KEY=VALUE` of the image's config; may be repeated", s.addLabel)

	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "Makes a container image, as a tar archive, from one static binary. SOURCE_DATE_EPOCH is its time.")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return spec{}, err
	} else if err != nil {
		return spec{}, fmt.Errorf("%w; --help lists the flags", err)
	}
	if flags.NArg() > 0 {
		return spec{}, fmt.Errorf("unexpected argument %q: everything is given by flags; --help lists them", flags.Arg(0))
	}
	for _, f := range []string{"binary", "entrypoint", "name", "output"} {
		if flags.Lookup(f).Value.String() == "" {
			return spec{}, fmt.Errorf("--%s is missing; --help lists the flags", f)
		}
	}

	var err error
	if s.platform, err = parsePlatform(platform); err != nil {
		return spec{}, err
	}
	if s.created, err = parseEpoch(getenv("SOURCE_DATE_EPOCH")); err != nil {
		return spec{}, err
	}
	if err := s.validate(); err != nil {
		return spec{}, err
	}
	return s, nil
}

func (s *spec) addLabel(label string) error {
	key, value, ok := strings.Cut(label, "=")
	if !ok || key == "" || strings.ContainsAny(key, " \t\r\n") {
		return errors.New("a label is KEY=VALUE, its key without spaces")
	}
	if _, ok := s.labels[key]; ok {
		return fmt.Errorf("the key %s was given before", key)
	}
	s.labels[key] = value
	return nil
}
