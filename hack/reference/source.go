package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// source is a Go file with a resource's types. It knows what their definition lost.
type source struct {
	path string
	file *ast.File
}

func readSource(path string) (source, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	return source{path, file}, err
}

// order puts the names of an object's fields in the order in which their type has them.
func (s source) order(names []string) []string {
	ast.Inspect(s.file, func(node ast.Node) bool {
		of, ok := node.(*ast.StructType)
		if !ok {
			return true
		}
		var fields []string
		for _, field := range of.Fields.List {
			if field.Tag == nil {
				continue
			}
			name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
			fields = append(fields, name)
		}
		if slices.Equal(slices.Sorted(slices.Values(fields)), slices.Sorted(slices.Values(names))) {
			names = fields
		}
		return true
	})
	return names
}

// conditions is the table of the constants whose names begin with Condition.
func (s source) conditions() (string, error) {
	var rows strings.Builder
	var err error
	ast.Inspect(s.file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Condition") || len(spec.Values) != 1 {
			return true
		}
		if value, ok := spec.Values[0].(*ast.BasicLit); ok {
			word, unquoted := strconv.Unquote(value.Value)
			if unquoted != nil {
				err = unquoted
			}
			text := strings.Join(strings.Fields(spec.Doc.Text()), " ")
			text = strings.TrimPrefix(text, spec.Names[0].Name+" is ")
			fmt.Fprintf(&rows, "| `%s` | %s |\n", word, cell(escape(text)))
		}
		return true
	})
	if rows.Len() == 0 && err == nil {
		err = fmt.Errorf("%s has no constants whose names begin with Condition", s.path)
	}
	return "| condition | is |\n|---|---|\n" + rows.String(), err
}
