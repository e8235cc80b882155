package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// What the Secret has: those of a Secret of type kubernetes.io/tls, as cert-manager writes them, and the authority's key.
const (
	keyCertificate  = "tls.crt"
	keyPrivate      = "tls.key"
	keyAuthorities  = "ca.crt"
	keyAuthorityKey = "ca.key"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	// backdate is how much clocks may differ.
	backdate = time.Hour
	// settle is how long a new authority is published before it signs anything: by then every activator trusts it.
	settle = 10 * time.Minute
)

// bundle is all that the Secret has. It is immutable.
type bundle struct {
	authorities  []*x509.Certificate // the newest first, whose key this is; an older one until nothing is left that it signed
	authorityKey *ecdsa.PrivateKey
	leaf         *x509.Certificate
	leafKey      *ecdsa.PrivateKey
}

// next returns the bundle that should be there at a time, for servers of the names: b itself, or one with something made
// anew. A nil b is none.
func (b *bundle) next(now time.Time, names []string) (*bundle, error) {
	if b == nil || !holds(b.authorities[0], now) {
		made, err := withAuthority(nil, now)
		if err != nil {
			return nil, err
		}
		return made.withLeaf(now, names)
	}
	newest := b.authorities[0]
	if ending(newest, now) {
		return withAuthority(b, now)
	}
	signed := bytes.Equal(b.leaf.AuthorityKeyId, newest.SubjectKeyId) // hashes of the authority's key
	settled := now.Sub(newest.NotBefore) >= backdate+settle
	switch {
	case !signed && settled:
		return b.withLeaf(now, names)
	case !signed && holds(b.leaf, now): // it is still good, and the newest authority not known everywhere
		return b, nil
	case !signed || !holds(b.leaf, now) || ending(b.leaf, now) || !covers(b.leaf, names):
		renewed, err := b.withLeaf(now, names)
		if err == nil && signed { // nothing has been signed by others since the leaf before
			renewed.authorities = renewed.authorities[:1]
		}
		return renewed, err
	}
	return b, nil
}

// withAuthority returns b with a new authority, and its leaf as it is. A nil b has neither.
func withAuthority(b *bundle, now time.Time) (*bundle, error) {
	made := new(bundle)
	if b != nil {
		*made = *b
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	authority, err := issue(&x509.Certificate{
		Subject:   pkix.Name{CommonName: "dormouse control " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, nil, key, key)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	made.authorityKey = key
	made.authorities = []*x509.Certificate{authority}
	if b != nil {
		made.authorities = append(made.authorities, b.authorities[0]) // what is older has no leaf any more
	}
	return made, nil
}

// withLeaf returns b with a new leaf, signed by its newest authority.
func (b *bundle) withLeaf(now time.Time, names []string) (*bundle, error) {
	made := *b
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	made.leafKey = key
	made.leaf, err = issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "dormouse control"}, DNSNames: names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}, b.authorities[0], key, b.authorityKey)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &made, nil
}

// issue signs a certificate for key. A nil parent is itself.
func issue(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// holds tells whether a certificate is good at a time. One may begin later: a leader whose clock was wrong has made it.
func holds(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// ending tells whether a third of a certificate's life, or less, is left.
func ending(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) <= c.NotAfter.Sub(c.NotBefore)/3
}

func covers(leaf *x509.Certificate, names []string) bool {
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

// data returns the bundle as the Secret has it.
func (b *bundle) data() (map[string][]byte, error) {
	data := make(map[string][]byte, 4)
	for name, key := range map[string]*ecdsa.PrivateKey{keyPrivate: b.leafKey, keyAuthorityKey: b.authorityKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("write a key: %w", err)
		}
		data[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	data[keyCertificate] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.leaf.Raw})
	for _, authority := range b.authorities {
		data[keyAuthorities] = append(data[keyAuthorities], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})...)
	}
	return data, nil
}

// parse reads what the Secret has. Nothing at all is nil, and no error.
func parse(data map[string][]byte) (*bundle, error) {
	if len(data) == 0 {
		return nil, nil //nolint:nilnil // the Secret is empty when the chart has made it
	}
	leaf, err := tls.X509KeyPair(data[keyCertificate], data[keyPrivate])
	if err != nil {
		return nil, fmt.Errorf("read %s and %s: %w", keyCertificate, keyPrivate, err)
	}
	b := &bundle{leaf: leaf.Leaf}
	for rest := data[keyAuthorities]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", keyAuthorities, err)
		}
		b.authorities = append(b.authorities, authority)
	}
	if len(b.authorities) == 0 {
		return nil, fmt.Errorf("read %s: there is no certificate", keyAuthorities)
	}
	block, _ := pem.Decode(data[keyAuthorityKey])
	if block == nil {
		return nil, fmt.Errorf("read %s: there is no key", keyAuthorityKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyAuthorityKey, err)
	}
	var own, fits bool
	b.leafKey, own = leaf.PrivateKey.(*ecdsa.PrivateKey)
	if b.authorityKey, fits = parsed.(*ecdsa.PrivateKey); !own || !fits || !b.authorityKey.PublicKey.Equal(b.authorities[0].PublicKey) {
		return nil, errors.New("the keys are not ours, or do not belong to the certificates")
	}
	return b, nil
}
