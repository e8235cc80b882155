package local

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// value is a value of the file, which knows the full name of its field. Its methods leave what they are given alone, and
// so at its default, where the value is null or a mistake; a mistake goes to the source.
type value struct {
	source *source
	node   *yaml.Node
	line   int
	path   string
}

// fields maps the names that a mapping may have to what takes their values.
type fields map[string]func(value)

func newValue(s *source, node *yaml.Node, path string) value {
	v := value{source: s, node: node, line: node.Line, path: path}
	if node.Kind == yaml.AliasNode {
		v.node = node.Alias
	}
	return v
}

// fail notes a mistake in this value.
func (v value) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if v.path != "" {
		text = v.path + ": " + text
	}
	v.source.fail(v.line, text)
}

func (v value) isMapping() bool { return v.node != nil && v.node.Kind == yaml.MappingNode }
func (v value) isList() bool    { return v.node != nil && v.node.Kind == yaml.SequenceNode }
func (v value) isScalar() bool  { return v.node != nil && v.node.Kind == yaml.ScalarNode }

// set reports whether there is a value, and not just its field's name.
func (v value) set() bool { return v.node != nil && v.node.ShortTag() != "!!null" }

// mapping hands the values of a mapping to their fields.
func (v value) mapping(known fields) {
	v.entries(func(name string, entry value) {
		field := known[name]
		switch {
		case field != nil:
			field(entry)
		case name == "<<":
			entry.fail("merge keys are not supported; write the fields out")
		default:
			entry.fail("unknown field; %s", hint(name, slices.Sorted(maps.Keys(known))))
		}
	})
}

// entries calls each for every entry of a mapping.
func (v value) entries(each func(name string, entry value)) {
	if !v.set() {
		return
	}
	if !v.isMapping() {
		v.fail("this must be a mapping of names to values, not %s", v.kind())
		return
	}
	seen := make(map[string]int, len(v.node.Content)/2)
	for i := 0; i < len(v.node.Content); i += 2 {
		key, node := v.node.Content[i], v.node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			v.source.fail(key.Line, strings.TrimPrefix(v.path+": ", ": ")+"a name must be a word")
			continue
		}
		entry := newValue(v.source, node, v.path+"."+key.Value)
		entry.path = strings.TrimPrefix(entry.path, ".")
		if first := seen[key.Value]; first > 0 {
			entry.line = key.Line
			entry.fail("this is set twice, first in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		if !entry.isScalar() {
			entry.line = key.Line // A block begins a line after its name.
		}
		each(key.Value, entry)
	}
}

// list calls each for every element of a list. An empty element is a mistake: a list of hosts with nothing but that would
// be no condition.
func (v value) list(each func(element value)) {
	if !v.set() {
		return
	}
	if !v.isList() {
		v.fail("this must be a list, not %s", v.kind())
		return
	}
	for i, node := range v.node.Content {
		element := newValue(v.source, node, fmt.Sprintf("%s[%d]", v.path, i))
		if !element.set() {
			element.fail("there is nothing here")
			continue
		}
		each(element)
	}
}

// text takes a text. Numbers and the like are texts only in quotes.
func (v value) text(to *string) bool {
	switch {
	case !v.set():
		return false
	case !v.isScalar() || v.node.ShortTag() != "!!str":
		v.fail("this must be a text, not %s", v.kind())
		return false
	}
	*to = v.node.Value
	return true
}

// words takes a text, or anything that is written like one: a port among a command's arguments needs no quotes.
func (v value) words(to *string) {
	switch {
	case !v.set():
	case !v.isScalar():
		v.fail("this must be a text, not %s", v.kind())
	case strings.ContainsRune(v.node.Value, 0):
		v.fail("this must not contain a zero byte")
	default:
		*to = v.node.Value
	}
}

// missing notes that a mapping lacks an entry.
func (v value) missing(name, why string) {
	v.source.fail(v.line, fmt.Sprintf("%s.%s: missing; %s", v.path, name, why))
}

// kind describes what a value is, for somebody who expected something else.
func (v value) kind() string {
	switch v.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch v.node.ShortTag() {
		case "!!int", "!!float":
			return "the number " + v.node.Value
		case "!!bool":
			return v.node.Value + " (put it in quotes if it is meant as a text)"
		case "!!null":
			return "nothing"
		}
		return strconv.Quote(v.node.Value)
	case yaml.DocumentNode, yaml.AliasNode:
	}
	return "nothing"
}

// The functions below make what takes the value of one field. Each leaves the default where the value is null or a
// mistake.

func mapping(known fields) func(value) { return func(v value) { v.mapping(known) } }

func boolean(to *bool) func(value) {
	return func(v value) {
		switch {
		case !v.set():
		case v.node.ShortTag() != "!!bool" || v.node.Decode(to) != nil:
			v.fail("this must be true or false, not %s", v.kind())
		}
	}
}

// number takes a whole number that is not negative and at most most.
func number(to *int, most int) func(value) {
	return func(v value) {
		var n int
		switch {
		case !v.set():
		case !v.isScalar() || v.node.ShortTag() != "!!int":
			v.fail("this must be a whole number, not %s", v.kind())
		case v.node.Decode(&n) != nil || n > most:
			v.fail("%s is too large; the most is %d", v.node.Value, most)
		case n < 0:
			v.fail("%d is negative", n)
		default:
			*to = n
		}
	}
}

func replicas(to *int32) func(value) {
	return func(v value) {
		n := int(*to)
		number(&n, math.MaxInt32)(v)
		*to = int32(n)
	}
}

func duration(to *time.Duration) func(value) {
	return func(v value) {
		if !v.set() {
			return
		}
		if !v.isScalar() {
			v.fail("this must be a duration, such as 30s or 5m, not %s", v.kind())
			return
		}
		d, err := time.ParseDuration(v.node.Value)
		switch {
		case err != nil:
			v.fail("%q is not a duration; use a number and a unit, such as 30s or 5m", v.node.Value)
		case d < 0:
			v.fail("%s is negative", v.node.Value)
		default:
			*to = d
		}
	}
}
