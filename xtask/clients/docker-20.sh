# Debian 12's `docker`, of 2020, which speaks API 1.41. Prints one line for each thing that it finds out.
set -u
say() { printf '%s: %s\n' "$1" "$(printf '%s' "$2" | tr '\n' ' ')"; }
quiet() { "$@" >out 2>err </dev/null; }
say version "$(docker version --format '{{.Client.APIVersion}} {{.Client.Version}}' | cut -d. -f1-3)"
say 'run' "$(docker run --rm busybox echo out)"
docker run --rm busybox sh -c 'exit 3'; say 'its code' $?
quiet docker run --rm busybox nosuch; say 'no such program' $?
quiet docker run --rm busybox /etc; say 'not a program' $?
quiet docker run --rm nosuch.invalid/x:1; say 'no such image' $?
say 'input' "$(echo typed | docker run --rm -i busybox cat)"
say 'two streams' "$(docker run --rm busybox sh -c 'echo a; echo b >&2' 2>&1 >/dev/null)"
docker run -d --name one -l x=y -e A=b -w /tmp busybox sh -c 'echo begun; exec sleep 1000' >/dev/null; say 'in the background' $?
say ps "$(docker ps --filter label=x=y --format '{{.Names}} {{.Image}} {{.State}}')"
say inspect "$(docker inspect -f '{{.State.Status}} {{.Config.WorkingDir}} {{.HostConfig.NetworkMode}}' one)"
say logs "$(docker logs one)"
say exec "$(docker exec -e C=d one sh -c 'echo $A $C $PWD')"
docker exec one sh -c 'exit 4'; say 'its code' $?
quiet docker exec one nosuch; say 'no such program' $?
say 'input of exec' "$(echo typed | docker exec -i one cat)"
echo copied >file
quiet docker cp file one:/tmp/there; say 'cp in' $?
say 'cp out' "$(docker cp one:/tmp/there - | tar -xO)"
quiet docker cp one:/nosuch -; say 'cp of nothing' $?
say diff "$(docker diff one)"
say top "$(docker top one -o comm | tail -1)"
say stats "$(docker stats --no-stream --format '{{.Name}}' one)"
quiet docker pause one; say pause "$? $(docker inspect -f '{{.State.Status}}' one)"
quiet docker unpause one; say unpause $?
quiet docker rename one two; say rename "$? $(docker ps --format '{{.Names}}')"
quiet docker update --memory 64m --memory-swap 64m two; say update "$? $(docker inspect -f '{{.HostConfig.Memory}}' two)"
quiet docker restart -t 0 two; say restart "$? $(docker logs two)"
quiet docker commit -m said -c 'ENV Z=1' two made:1; say commit "$? $(docker inspect -f '{{.Config.Env}}' made:1)"
say history "$(docker history --format '{{.Comment}}' made:1 | head -1)"
quiet docker rm two; say 'rm of what runs' $?
quiet docker kill two; say kill "$? $(docker wait two)"
quiet docker start two; say start $?
quiet docker stop -t 0 two; say stop $?
quiet docker rm -v two; say rm $?
quiet docker network create --subnet 10.111.1.0/24 net; say 'network create' $?
docker run -d --name served --network net --network-alias other busybox httpd -f -h /etc >/dev/null; say 'on it' $?
say 'by alias' "$(docker run --rm --network net busybox wget -q -O - http://other/passwd | head -1 | cut -d: -f1)"
quiet docker network connect bridge served; say connect $?
say networks "$(docker inspect -f '{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{end}}' served)"
quiet docker network disconnect bridge served; say disconnect $?
quiet docker network rm net; say 'network rm in use' $?
quiet docker rm -f served; say 'rm -f' $?
quiet docker network rm net; say 'network rm' $?
quiet docker volume create vol; say 'volume create' $?
docker run --rm -v vol:/v busybox touch /v/file; say 'volume' "$? $(docker run --rm -v vol:/v:ro busybox ls /v)"
say volumes "$(docker volume ls -q)"
quiet docker volume rm vol; say 'volume rm' $?
quiet docker tag made:1 made:2; say tag "$? $(docker images --format '{{.Tag}}' made | sort)"
quiet docker save -o saved made:2; say save $?
quiet docker rmi made:1 made:2; say rmi "$? $(docker images -q made)"
say load "$(docker load -i saved)"
docker export "$(docker create --name three busybox true)" | tar -tf - | grep -c '^etc/passwd$' >count; say export "$(cat count)"
say import "$(docker export three | docker import -c 'CMD ["echo", "imported"]' - imported | cut -c1-7) $(docker run --rm imported)"
quiet docker rm three; say rm $?
mkdir -p context
echo kept >context/file
printf 'FROM busybox AS first\nARG A=1\nRUN echo $A >/made\nFROM busybox\nCOPY file /\nCOPY --from=first /made /\nLABEL l=m\nCMD ["cat", "/file", "/made"]\n' >context/Dockerfile
DOCKER_BUILDKIT=0 docker build -q -t built --build-arg A=7 context >out 2>err; say build $?
say built "$(docker run --rm built) $(docker inspect -f '{{.Config.Labels.l}}' built)"
printf 'FROM busybox\nRUN exit 5\n' | DOCKER_BUILDKIT=0 docker build -q - >out 2>err; say 'build that fails' $?
say events "$(docker events --since 600s --until 0s --filter container=served --filter event=create --format '{{.Type}} {{.Action}}')"
quiet docker rmi built imported made:2; say rmi $?
quiet docker image prune -f; say 'image prune' $?
quiet docker container prune -f; say 'container prune' $?
say 'what is left' "$(docker ps -aq) $(docker volume ls -q)"
quiet docker swarm ca; say 'no swarm' $?
