package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckCommand is a probe for where nothing else is in the image: "helm test" runs it.
func healthcheckCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "healthcheck URL",
		Short:   "Ask whether an activator answers, and end with success if it does",
		Example: "  activator healthcheck http://127.0.0.1:9090/readyz",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(fmt.Errorf("name one URL, such as http://127.0.0.1:9090/readyz; got %d arguments", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, args[0], nil)
			if err != nil {
				return usage(fmt.Errorf("%q is no URL such as http://127.0.0.1:9090/readyz", args[0]))
			}
			response, err := (&http.Client{Timeout: timeout}).Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n%s", args[0], response.Status, body)
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s answered %s, not 200", args[0], response.Status)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}
