// Command reference writes the tables of docs/elasticservice.md: a table for each object of the resource's definition, and
// one for the conditions of its status. What is between a line that begins with "<!-- generated: NAME" and the next one
// with "<!-- end" is its own; the rest of the file is kept.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: reference DEFINITION.yaml TYPES.go DOCUMENT.md")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(definition, types, document string) error {
	text, err := os.ReadFile(definition)
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return fmt.Errorf("parse %s: %w", definition, err)
	}
	root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	source, err := readSource(types)
	if err != nil {
		return err
	}
	conditions, err := source.conditions()
	if err != nil {
		return err
	}

	before, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	after, err := fill(before, map[string]string{
		"spec":       source.object("spec", root.Properties["spec"]),
		"status":     source.object("status", root.Properties["status"]),
		"conditions": conditions,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	if bytes.Equal(before, after) {
		return nil
	}
	return os.WriteFile(document, after, 0o644)
}

// fill puts each text between the lines that are marked with its name.
func fill(document []byte, texts map[string]string) ([]byte, error) {
	var out strings.Builder
	inside, filled := "", 0
	for line := range strings.Lines(string(document)) {
		if name, ok := strings.CutPrefix(line, "<!-- generated: "); ok {
			name, _, _ = strings.Cut(name, " ")
			text, known := texts[name]
			if inside != "" || !known {
				return nil, fmt.Errorf("a part %q cannot begin here", name)
			}
			inside = name
			filled++
			out.WriteString(line + "\n" + text + "\n")
			continue
		}
		if strings.HasPrefix(line, "<!-- end") {
			inside = ""
		}
		if inside == "" {
			out.WriteString(line)
		}
	}
	if inside != "" || filled != len(texts) {
		return nil, fmt.Errorf("%d parts are marked and the last one is %q: mark each of %d, with an end", filled, inside, len(texts))
	}
	return []byte(out.String()), nil
}
