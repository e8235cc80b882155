package local

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// source is a file that is being read. It collects the mistakes in it.
type source struct {
	name     string // or empty
	mistakes []mistake
}

type mistake struct {
	line int // 0: not known
	text string
}

// document returns the one document of the file, or false.
func (s *source) document(data []byte) (value, bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		s.fail(1, "the file is empty; it lists services under \"services:\"")
		return value{}, false
	case err != nil:
		s.syntax(err)
		return value{}, false
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		s.fail(second.Line, "a second document begins here; a file has one")
		return value{}, false
	case !errors.Is(err, io.EOF):
		s.syntax(err)
		return value{}, false
	}
	return newValue(s, first.Content[0], ""), true
}

func (s *source) fail(line int, text string) {
	s.mistakes = append(s.mistakes, mistake{line, text})
}

// syntax takes apart what the YAML library says: "yaml: line 3: did not find expected key".
func (s *source) syntax(err error) {
	parts := regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`).FindStringSubmatch(err.Error())
	if parts == nil {
		s.fail(0, err.Error())
		return
	}
	line, _ := strconv.Atoi(parts[1])
	s.fail(line, "not YAML: "+parts[2])
}

// err returns all mistakes in the order of their lines, or nil.
func (s *source) err() error {
	slices.SortStableFunc(s.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	var all []error
	for _, m := range s.mistakes {
		all = append(all, errors.New(s.position(m.line)+m.text))
	}
	return errors.Join(all...)
}

func (s *source) position(line int) string {
	switch {
	case line == 0 && s.name == "":
		return ""
	case line == 0:
		return s.name + ": "
	case s.name == "":
		return fmt.Sprintf("line %d: ", line)
	}
	return fmt.Sprintf("%s:%d: ", s.name, line)
}
