package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// maxScrapes is how many scrapes are answered at once: two Prometheus servers and a person. More are answered with 503,
// because each gathers everything into memory (16.6 MB of text for 10,000 services).
const maxScrapes = 3

// Handler serves what gatherer gathers, in the format that the scraper asks for: text, OpenMetrics, or protobuf, the only
// one that carries native histograms. What cannot be gathered is logged and left out; the rest is served.
func Handler(gatherer prometheus.Gatherer, logger *zap.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{logger},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})
}

// scrapeLog hands promhttp's errors to zap.
type scrapeLog struct{ logger *zap.Logger }

var _ promhttp.Logger = scrapeLog{}

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	for _, value := range v {
		if err, ok := value.(error); ok {
			l.logger.Error("metrics could not be served whole", zap.Error(err))
			return
		}
	}
	l.logger.Error("metrics could not be served whole", zap.Any("cause", v))
}
