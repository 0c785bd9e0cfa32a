// Makes the databases beside it, by bbolt itself: go run . DIR
//
// containerd.db is laid out as containerd's metadata, with pages of 512 bytes, so that few images
// are trees of several levels. wide.db has pages of 4 KiB, as files have here, a value over several
// of them, and many keys.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func inner(above *bbolt.Bucket, name string) *bbolt.Bucket {
	bucket, err := above.CreateBucketIfNotExists([]byte(name))
	must(err)
	return bucket
}

func put(bucket *bbolt.Bucket, key string, value []byte) {
	must(bucket.Put([]byte(key), value))
}

func varint(number int64) []byte {
	return binary.AppendVarint(nil, number)
}

// open makes a database of pages of a size.
func open(pageSize int) *bbolt.DB {
	file, err := os.CreateTemp("", "maker")
	must(err)
	must(file.Close())
	must(os.Remove(file.Name()))
	db, err := bbolt.Open(file.Name(), 0o600, &bbolt.Options{PageSize: pageSize})
	must(err)
	return db
}

// keep copies a database, without room at its end.
func keep(db *bbolt.DB, path string) {
	must(db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, 0o644) }))
	must(os.Remove(db.Path()))
	must(db.Close())
}

// image writes what containerd writes of an image that it has pulled.
func image(images *bbolt.Bucket, name, of, mediaType string) {
	bucket := inner(images, name)
	put(bucket, "createdat", bytes.Repeat([]byte{1}, 15))
	put(bucket, "updatedat", bytes.Repeat([]byte{1}, 15))
	put(inner(bucket, "labels"), "io.cri-containerd.image", []byte("managed"))
	target := inner(bucket, "target")
	put(target, "digest", fmt.Appendf(nil, "sha256:%x", sha256.Sum256([]byte(of))))
	put(target, "mediatype", []byte(mediaType))
	put(target, "size", varint(1000))
}

func containerd(path string) {
	db := open(512)
	must(db.Update(func(tx *bbolt.Tx) error {
		top, err := tx.CreateBucket([]byte("v1"))
		must(err)
		put(top, "version", varint(4))
		images := inner(inner(top, "k8s.io"), "images")
		index := "application/vnd.oci.image.index.v1+json"
		image(images, "docker.io/library/web:1", "web", index)
		image(images, fmt.Sprintf("docker.io/library/web@sha256:%x", sha256.Sum256([]byte("web"))), "web", index)
		image(images, fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("config"))), "web", index)
		image(images, "registry.example:5000/team/tool:2", "tool", "application/vnd.docker.distribution.manifest.v2+json")
		inner(inner(top, "default"), "labels")
		return nil
	}))
	// A second transaction, so that the metas differ.
	must(db.Update(func(tx *bbolt.Tx) error {
		images := tx.Bucket([]byte("v1")).Bucket([]byte("k8s.io")).Bucket([]byte("images"))
		image(images, "quay.io/gone:1", "gone", "x")
		return images.DeleteBucket([]byte("quay.io/gone:1"))
	}))
	keep(db, path)
}

func wide(path string) {
	db := open(4096)
	must(db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("many"))
		must(err)
		for number := range 200 {
			put(bucket, fmt.Sprintf("a key of some length, number %03d", number), fmt.Appendf(nil, "%d", number))
		}
		put(bucket, "long", bytes.Repeat([]byte("0123456789"), 500))
		_, err = tx.CreateBucket([]byte("empty"))
		return err
	}))
	keep(db, path)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go run . DIR")
	}
	containerd(filepath.Join(os.Args[1], "containerd.db"))
	wide(filepath.Join(os.Args[1], "wide.db"))
}
