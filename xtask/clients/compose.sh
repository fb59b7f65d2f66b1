# Compose: a project's life. Runs in a copy of compose/; prints one line for each thing that it finds out.
set -u
compose() { docker compose --ansi never --progress quiet "$@" </dev/null; }
say() { printf '%s: %s\n' "$1" "$2"; }
states() { compose ps -a --format '{{.Service}} {{.State}} {{.Health}}' | sort | tr '\n' ',' ; }
printf 'secret\n' >password
printf 'setting\n' >settings
mkdir -p source
printf 'first\n' >source/file
printf 'FROM busybox\nCOPY source /source\n' >Dockerfile
compose config --services | sort | tr '\n' ' '; echo
compose build watched >build.log 2>&1; say build $?
compose up -d 2>up.log; say up $?
compose wait job >wait.log 2>&1; say 'wait for the job' $?
say states "$(states)"
say 'secret and config' "$(compose logs --no-log-prefix job | tr '\n' ' ')"
say 'by name' "$(compose exec -T frontend sh -c 'for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://backend/ && exit; sleep 0.3; done; exit 1')"
compose exec -T frontend sh -c 'timeout 3 wget -q -O - http://database/' >/dev/null 2>&1 && say 'other network' reached || say 'other network' 'not reached'
say variable "$(compose exec -T frontend sh -c 'echo $PLACE')"
compose up -d --scale frontend=3 2>scale.log; say scale $?
say scaled "$(compose ps -q frontend | wc -l)"
compose --profile debug up -d 2>profile.log; say profile $?
say 'with profile' "$(compose --profile debug ps --services | grep -v job | sort | tr '\n' ' ')"
say run "$(compose run --rm -T frontend sh -c 'echo one-off; exit 0' 2>/dev/null)"
compose run --rm -T frontend sh -c 'exit 6' >/dev/null 2>&1; say 'run fails' $?
PLACE=there compose up -d frontend 2>again.log; say 'changed variable' $?
say variable "$(compose exec -T frontend sh -c 'echo $PLACE')"
docker compose --ansi never watch --no-up >watch.log 2>&1 </dev/null &
watch=$!
for i in $(seq 50); do grep -q -i 'watch enabled' watch.log && break; sleep 0.2; done
printf 'second\n' >source/file
for i in $(seq 50); do [ "$(compose exec -T watched cat /source/file)" = second ] && break; sleep 0.2; done
say synced "$(compose exec -T watched cat /source/file)"
kill $watch 2>/dev/null
wait $watch 2>/dev/null
compose restart backend 2>restart.log; say restart $?
compose pause frontend 2>/dev/null; say paused "$(compose ps -a --format '{{.State}}' frontend | sort -u)"
compose unpause frontend 2>/dev/null
compose stop -t 2 2>stop.log; say stop $?
say states "$(compose --profile debug ps -a --format '{{.Service}} {{.State}}' | sort | tr '\n' ',')"
compose start 2>start.log; say start $?
compose --profile debug down -v -t 2 2>down.log; say down $?
say left "$(docker ps -aq --filter label=com.docker.compose.project=project | wc -l) $(docker volume ls -q --filter label=com.docker.compose.project=project | wc -l) $(docker network ls -q --filter label=com.docker.compose.project=project | wc -l)"
docker rmi -f watched >/dev/null 2>&1
