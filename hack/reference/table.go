package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// object is what there is about an object at a path such as spec.hold, followed by a section for each object in it.
func (s source) object(path string, schema apiextensionsv1.JSONSchemaProps) string {
	var out, inner strings.Builder
	out.WriteString("| field | type | default | meaning |\n|---|---|---|---|\n")
	for _, name := range s.order(slices.Sorted(maps.Keys(schema.Properties))) {
		field := schema.Properties[name]
		meaning := sentence(name, field.Description)
		if below, at := within(path+"."+name, field); below != nil {
			fmt.Fprintf(&inner, "\n### %s\n\n%s\n\n%s", at, sentence("", below.Description), s.object(at, *below))
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, kind(path+"."+name, field), preset(schema, name), cell(meaning))
	}
	if len(schema.XValidations) > 0 {
		out.WriteString("\nBesides:\n\n")
		for _, rule := range schema.XValidations {
			fmt.Fprintf(&out, "- %s\n", rule.Message)
		}
	}
	return out.String() + inner.String()
}

// within is the object that a field is or has a list of, with its path; or nil. Conditions have a section of their own.
func within(path string, field apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, string) {
	if path == "status.conditions" {
		return nil, ""
	}
	if len(field.Properties) > 0 {
		return &field, path
	}
	if field.Items != nil && field.Items.Schema != nil && len(field.Items.Schema.Properties) > 0 {
		return field.Items.Schema, path + "[]"
	}
	return nil, ""
}

// kind is what a field's value may be.
func kind(path string, field apiextensionsv1.JSONSchemaProps) string {
	if below, at := within(path, field); below != nil {
		word := "object"
		if at != path {
			word = "list" + atMost(field.MaxItems)
		}
		return fmt.Sprintf("[%s](#%s)", word, strings.NewReplacer(".", "", "[", "", "]", "").Replace(strings.ToLower(at)))
	}
	switch {
	case len(field.Enum) > 0:
		var words []string
		for _, word := range field.Enum {
			words = append(words, "`"+strings.Trim(string(word.Raw), `"`)+"`")
		}
		return strings.Join(words, ", ")
	case field.XIntOrString:
		return "string or number"
	case strings.Contains(field.Pattern, "(ms|s|m|h)"):
		return "duration"
	case field.Format == "date-time":
		return "time"
	case field.Type == "array":
		if field.Items.Schema.Type == "string" {
			return "list of strings" + atMost(field.MaxItems)
		}
		return "list" + atMost(field.MaxItems)
	case field.Type == "integer" && field.Minimum != nil:
		return fmt.Sprintf("integer, %v or more", *field.Minimum)
	case field.Type == "string" && field.MaxLength != nil:
		return fmt.Sprintf("string, at most %d characters", *field.MaxLength)
	}
	return field.Type
}

func atMost(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(", at most %d", *n)
}

// preset is a field's default, or that it must be given.
func preset(parent apiextensionsv1.JSONSchemaProps, name string) string {
	if slices.Contains(parent.Required, name) {
		return "(required)"
	}
	field := parent.Properties[name]
	if field.Default == nil || len(field.Properties) > 0 {
		return ""
	}
	return "`" + strings.Trim(string(field.Default.Raw), `"`) + "`"
}

// sentence is a comment as a document has it: its lines joined, its first word, if that is the field's, as the field is
// spelt in YAML.
func sentence(field, comment string) string {
	comment = strings.Join(strings.Fields(comment), " ")
	first, rest, ok := strings.Cut(comment, " ")
	if ok && field != "" && strings.EqualFold(strings.TrimSuffix(first, ":"), field) {
		return "`" + field + "`" + strings.TrimPrefix(first, strings.TrimSuffix(first, ":")) + " " + escape(rest)
	}
	return escape(comment)
}

func escape(text string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "*", `\*`).Replace(text)
}

// cell is a text in a table.
func cell(text string) string {
	return strings.ReplaceAll(text, "|", `\|`)
}
